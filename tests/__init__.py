"""Tests, in folders that mirror the project's; helpers that several of them share stand here."""
