"""Tests of what deploys the service: files against those who read them; slow ones that build, run and watch it."""
