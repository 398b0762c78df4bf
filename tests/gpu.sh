#!/usr/bin/env bash
# Builds, tests and measures the CUDA engine on this machine's GPU: `make test-gpu`, or tests/gpu.sh STEP...
#
# Needs no network, but a Python (PYTHON, by default python3) that has PyTorch, numpy, safetensors, pytest, nanobind,
# scikit-build-core, cmake and ninja, and nvcc and compute-sanitizer beside it. The engine is installed into that Python.
# Steps: build, look, test, selftest, sanitize, bench. Everything they say lies in OUT (runs/gpu), their verdicts in
# OUT/results.txt; what cannot run has failed. DEVICE=cpu tries the script itself out where there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-runs/gpu}
DEVICE=${DEVICE:-cuda:0}
export DEVICE PYTHONUNBUFFERED=1

build() {
    "$PYTHON" -m pip install --no-index --no-build-isolation --no-deps -e .
}

look() {
    [ "$DEVICE" = cpu ] || nvidia-smi
    nvcc --version
    "$PYTHON" -m tests.native.device look
}

# pytest's own settings of this repository hold; on a GPU the cases that every backend must pass run on it too
test_() {
    "$PYTHON" -m pytest -p no:cacheprovider tests/engine/backends/test_backends.py tests/engine/backends/test_gpu.py \
        tests/engine/test_runtime.py tests/engine/test_selftest.py tests/engine/backends/test_registry.py
}

selftest() {
    "$PYTHON" -m service.cli selftest --kernel "${DEVICE/#cpu/portable}"
}

sanitize() {
    local tool
    for tool in memcheck racecheck initcheck synccheck; do
        echo "-- $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m tests.native.device cases || return
    done
}

bench() {
    "$PYTHON" -m tests.bench --device "$DEVICE" --json "$OUT/bench.json"
}

mkdir -p "$OUT"
: >"$OUT/results.txt"
failed=0
for step in "${@:-build look test selftest sanitize bench}"; do
    for name in $step; do # the default is one word
        started=$SECONDS
        run=$name
        [ "$name" = test ] && run=test_
        echo "== $name"
        "$run" 2>&1 | tee "$OUT/$name.txt"
        status=${PIPESTATUS[0]}
        verdict=ok
        [ "$status" = 0 ] || { verdict="FAILED ($status)"; failed=1; }
        printf '%-10s %s, %s s\n' "$name" "$verdict" $((SECONDS - started)) >>"$OUT/results.txt"
    done
done
echo "== results"
cat "$OUT/results.txt"
exit "$failed"
