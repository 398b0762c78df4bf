"""Tests of the service, most of them over real HTTP with an engine that only compares red with the threshold."""
