"""For pytest's -p: tests see the native module on a fake GPU (`cuda.build_module`) that MBUNET_EMULATED_GPU names."""

from __future__ import annotations

import importlib.util
import os
import sys

import engine

NAME = "engine._native"

_spec = importlib.util.spec_from_file_location(NAME, os.environ["MBUNET_EMULATED_GPU"])
assert _spec
assert _spec.loader
sys.modules[NAME] = engine._native = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(engine._native)
