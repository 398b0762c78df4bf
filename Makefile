# Everything works from a fresh clone on a machine with Python 3.10 or newer, a C++ compiler and a package index.
# Two virtual environments: what serves stays small (.venv), what tests and trains has PyTorch (.venv-dev).

RUNTIME := .venv
DEV := .venv-dev
PORT ?= 8080
TORCH ?= torch==2.13.0

# what an installation depends on: Python files are used where they lie, the native module is compiled
BUILD_INPUTS := pyproject.toml $(shell find csrc -type f)
# where a plain `pip install` has put a copy of the sources, which would be served whatever becomes of them
copy_in = $(wildcard $(1)/lib/python*/site-packages/service/app.py)
CXX_FILES := $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.inl' -o -name '*.cu')
PIP := -m pip --disable-pip-version-check
# where there are nvcc and no GPU, tests and checks get CUDA for one architecture: to link it, and to import it
CUDA_HERE := $(shell command -v nvcc >/dev/null && ! command -v nvidia-smi >/dev/null && echo CUDAARCHS=90-real)

# a Python that can make virtual environments and compile modules; PYTHON=... chooses another
SUITABLE := import ensurepip, os, sys, sysconfig, venv; \
	header = os.path.join(sysconfig.get_path("include"), "Python.h"); \
	sys.exit(sys.version_info < (3, 10) or not os.path.exists(header))
CANDIDATES := python3.14 python3.13 python3.12 python3.11 python3.10 python3
PYTHON ?= $(shell for python in $(CANDIDATES); do $$python -c '$(SUITABLE)' 2>/dev/null && echo $$python && break; done)

.DELETE_ON_ERROR:
.PHONY: help setup serve test test-ray test-wheel test-dashboard test-image test-fuzz test-networks test-mutations test-faults test-workers test-compiled test-gpu gpu-day trainer check format bench sanitize clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup: $(RUNTIME)/.installed  ## install what serving needs into .venv

serve: $(RUNTIME)/.installed  ## serve two of the shipped models on PORT (8080)
	$(RUNTIME)/bin/mbunet serve --port $(PORT)

test: $(DEV)/.installed  ## run all tests; ARGS="-k name" chooses some
	$(DEV)/bin/python -m pytest $(ARGS)

test-image: $(DEV)/.installed  ## build and run the images on a Debian made here (root, debootstrap, buildah, crun); ARCH=arm64 in emulation
	ARCH=$(ARCH) $(DEV)/bin/python -m pytest -m slow tests/deploy/test_image.py $(ARGS)

test-wheel: $(DEV)/.installed  ## install the wheel by itself, without PyTorch, and serve one image with it
	@[ -z "$$(find engine service -name '*.py' -newer $(DEV)/.strict 2>/dev/null)" ] || rm $(DEV)/.strict
	@$(MAKE) --no-print-directory $(DEV)/.strict
	PYTHON=$(DEV)/bin/python tests/minimal.sh $(DEV)/wheel/*.whl

test-dashboard: $(DEV)/.installed  ## watch the service under load with a real Prometheus; needs prometheus
	$(DEV)/bin/python -m pytest -m slow tests/deploy/test_live.py $(ARGS)

test-ray: $(DEV)/.ray  ## segment and serve by a Ray cluster of two nodes and kill one
	$(DEV)/bin/python -m pytest -m slow tests/deploy/test_ray.py $(ARGS)

test-fuzz: $(DEV)/.installed  ## decode 10,000 broken image files of every format
	$(DEV)/bin/python -m pytest -m slow tests/engine/images $(ARGS)

test-cost: $(DEV)/.installed  ## what one client costs and others wait, and an hour's search for worse; needs a quiet machine
	COST_SEARCH_S=3600 $(DEV)/bin/python -m pytest -m slow -s tests/service/test_share.py tests/service/test_cost.py $(ARGS)

test-gpu:  ## build, test and measure on this machine's GPU with the Python that is there; needs no network
	tests/gpu.sh $(ARGS)

gpu-day:  ## on a GPU, in 8 minutes: train a student of TEACHER=FILE, and measure in its pauses; goes on where it stopped
	tests/gpu_day.sh

trainer: $(DEV)/.installed  ## install what training needs, PyTorch above all, into .venv-dev

check: $(DEV)/.installed $(DEV)/.strict  ## lint, types, formatting, and a build without warnings
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check
	$(DEV)/bin/mypy --strict engine service tests
	$(DEV)/bin/clang-format --dry-run -Werror $(CXX_FILES)

format: $(DEV)/.installed  ## format all sources
	$(DEV)/bin/ruff check --fix
	$(DEV)/bin/ruff format
	$(DEV)/bin/clang-format -i $(CXX_FILES)

bench: $(DEV)/.installed  ## measure the engine beside PyTorch, ONNX Runtime and OpenVINO (about ten minutes)
	$(DEV)/bin/python $(PIP) install -e '.[train,dev,peers]'
	$(DEV)/bin/python -m tests.bench $(ARGS)

test-compiled: $(DEV)/.installed  ## see that no gradient of fused training kernels is lost, in any family (five minutes)
	$(DEV)/bin/python -m pytest -m slow tests/engine/train/test_launch.py $(ARGS)

test-workers: $(DEV)/.installed  ## several processes: a hundred kills under load, 100,000 requests through four front ends
	$(DEV)/bin/python -m pytest -m slow tests/service/processes $(ARGS)

test-networks: $(DEV)/.installed  ## thousands of random networks on every kernel of this machine; ARGS="--seeds FIRST END"
	$(DEV)/bin/python -m tests.networks $(ARGS)

test-mutations: $(DEV)/.installed  ## thousands of changed model files of every family; ARGS="--seeds FIRST END"
	$(DEV)/bin/python -m tests.mutations $(ARGS)

test-faults: $(DEV)/.installed  ## plant a fixed list of faults in the kernels, which the tests must notice
	$(DEV)/bin/python -m tests.native.faults $(ARGS)

sanitize: $(DEV)/.installed  ## replay every case under the address, undefined-behaviour and thread sanitizers
	$(DEV)/bin/python -m tests.native.sanitize $(ARGS)

clean:  ## remove the virtual environments and caches
	rm -rf $(RUNTIME) $(DEV) .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME) $(DEV):
	@$(if $(PYTHON),$(PYTHON) -c '$(SUITABLE)',false) || { \
		echo "No suitable Python found: it must be 3.10 or newer, with its venv module and its C headers" >&2; \
		echo "(on Debian and Ubuntu: apt install python3-venv python3-dev), or say PYTHON=/path/to/python3." >&2; \
		exit 1; }
	$(PYTHON) -m venv $@ || { rm -rf $@; exit 1; }

$(RUNTIME)/.installed: $(BUILD_INPUTS) $(call copy_in,$(RUNTIME)) | $(RUNTIME)
	$(RUNTIME)/bin/python $(PIP) install -e .
	@touch $@

# by itself and first: a looser requirement could be met by a release with several GB of GPU packages
$(DEV)/.torch: | $(DEV)
	$(DEV)/bin/python $(PIP) install $(TORCH)
	@touch $@

$(DEV)/.installed: $(BUILD_INPUTS) $(call copy_in,$(DEV)) $(DEV)/.torch
	$(CUDA_HERE) $(DEV)/bin/python $(PIP) install -e '.[train,dev]'
	@touch $@

$(DEV)/.ray: pyproject.toml $(DEV)/.installed
	$(DEV)/bin/python $(PIP) install -e '.[ray]'
	@touch $@

$(DEV)/.strict: $(BUILD_INPUTS) | $(DEV)
	@rm -rf $(DEV)/wheel
	$(CUDA_HERE) $(DEV)/bin/python $(PIP) wheel . --no-deps --wheel-dir $(DEV)/wheel \
		--config-settings=cmake.define.MBUNET_WERROR=ON
	@touch $@
