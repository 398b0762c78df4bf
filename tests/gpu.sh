#!/usr/bin/env bash
# Builds, tests and measures the CUDA engine on this machine's GPU: `make test-gpu`, or tests/gpu.sh STEP...
#
# Needs no network, but a Python (PYTHON, by default python3) that has PyTorch, numpy, safetensors, pytest, nanobind,
# scikit-build-core, cmake and ninja, and nvcc and compute-sanitizer beside it. The engine is installed into that Python;
# or MODULE names a native module that was built elsewhere from these sources, with the same Python: it is used instead.
#
# Steps, in this order: build, look, test, compare (batches of 1 and 8 beside PyTorch's FP16), then selftest, training
# (captured and compiled steps beside plain ones), sanitize, bench. "quick" are the first four: they end within QUICK_S
# seconds (120), or have failed; TORCH=no leaves PyTorch out. Everything they say lies in OUT (runs/gpu), their verdicts
# in OUT/results.txt; what cannot run has failed. DEVICE=cpu tries the script itself out where there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-runs/gpu}
DEVICE=${DEVICE:-cuda:0}
QUICK_S=${QUICK_S:-120}
QUICK=${QUICK:-build look test compare}
export DEVICE PYTHONUNBUFFERED=1

build() {
    if [ -n "${MODULE:-}" ]; then
        cp -v "$MODULE" engine/
    else
        "$PYTHON" -m pip install --no-index --no-build-isolation --no-deps -e .
    fi
}

look() {
    [ "$DEVICE" = cpu ] || nvidia-smi
    nvcc --version
    "$PYTHON" -m tests.native.device look
}

# pytest's own settings of this repository hold; what a CPU's own kernels give, `make test` says
test_() {
    "$PYTHON" -m pytest -p no:cacheprovider -k "not (avx or neon or portable)" tests/engine/backends/test_backends.py \
        tests/engine/backends/test_gpu.py tests/engine/test_runtime.py tests/engine/test_selftest.py \
        tests/engine/backends/test_registry.py
}

compare() {
    local without=()
    [ "${TORCH:-yes}" = yes ] || without=(--without-torch)
    measure compare --quick "${without[@]}"
}

selftest() {
    "$PYTHON" -m service.cli selftest --kernel "${DEVICE/#cpu/portable}"
}

training() {
    "$PYTHON" -m pytest -p no:cacheprovider tests/engine/train/test_step.py
}

sanitize() {
    local tool
    for tool in memcheck racecheck initcheck synccheck; do
        echo "-- $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m tests.native.device cases || return
    done
}

bench() {
    measure bench
}

# NAME OPTION...: the benchmark; what it measured goes to OUT/NAME.json
measure() {
    if [ "$DEVICE" = cpu ]; then # of the engine on a CPU, a part that is over soon
        "$PYTHON" -m tests.bench --only memory --size 64 --out "$OUT"
    else
        "$PYTHON" -m tests.bench --device "$DEVICE" --json "$OUT/$1.json" "${@:2}"
    fi
}

# NAME STATUS STARTED: a line of the verdicts
note() {
    local verdict=ok
    [ "$2" = 0 ] || { verdict="FAILED ($2)"; failed=1; }
    printf '%-10s %s, %s s\n' "$1" "$verdict" $((SECONDS - $3)) >>"$OUT/results.txt"
}

run() {
    local name started=$SECONDS
    for name in "$@"; do
        started=$SECONDS
        echo "== $name"
        "${name/#test/test_}" 2>&1 | tee "$OUT/$name.txt"
        note "$name" "${PIPESTATUS[0]}" "$started"
    done
}

mkdir -p "$OUT"
: >"$OUT/results.txt"
failed=0
for step in "${@:-quick selftest training sanitize bench}"; do
    for name in $step; do # the default is one word
        if [ "$name" = quick ]; then
            started=$SECONDS
            run $QUICK
            late=$((SECONDS - started > QUICK_S))
            note quick "$late" "$started"
        else
            run "$name"
        fi
    done
done
echo "== results"
cat "$OUT/results.txt"
exit "$failed"
