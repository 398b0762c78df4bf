#!/usr/bin/env bash
# Everything that a few minutes of a GPU are good for, in one run: `make gpu-day`, or tests/gpu_day.sh.
#
# A masked student of WIDTH trains in the background on DATA, from TEACHER's weights and by its answers. It is stopped
# where it stands while others measure, and goes on afterwards: first the tests and the quick benchmark of tests/gpu.sh,
# later the profile. After every pause, and at the end, what there is of it is exported. It is saved every SAVE steps, so
# an end at any moment loses no more than that: run it again with the same OUT, and it goes on. It ends within TOTAL_S
# seconds (480), and says how many samples a second it learned from.
#
# Needs what tests/gpu.sh needs, and takes its MODULE, PYTHON, DEVICE and TORCH. TRAIN are further flags of
# `mbunet train`, LAUNCH is how steps get to the GPU (captured, compiled, plain). DEVICE=cpu with a small WIDTH and
# CHECKS=look tries the script itself out where there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-runs/gpu-day}
DEVICE=${DEVICE:-cuda:0}
DATA=${DATA:-tests/data/nuclei}
TEACHER=${TEACHER:?a checkpoint of a full-precision network of the same width}
WIDTH=${WIDTH:-64}
TRAIN=${TRAIN:---batch 8 --samples 128000 --crop 224 --learning-rate 8e-4 --contrast stretch --validate-every 8000 --validate-on 16}
LAUNCH=${LAUNCH:-captured}
SAVE=${SAVE:-1000}
CHECKS=${CHECKS:-look test compare}
TOTAL_S=${TOTAL_S:-480}
FIRST_S=${FIRST_S:-45}     # of training before the first pause: an error shows by then
PROFILE_S=${PROFILE_S:-60} # at most, for the profile
END_S=${END_S:-45}         # to stop, export and score the student
STUDENT=$OUT/student
export PYTHON DEVICE OUT PYTHONUNBUFFERED=1

remaining() { echo $((TOTAL_S - SECONDS - ${1:-0})); }

say() { echo "== $SECONDS s: $*"; }

# every process of the training's own group, batches' too
signal() { [ -z "${training:-}" ] || kill "-$1" -- "-$training" 2>/dev/null; }
trains() { [ -n "${training:-}" ] && kill -0 "$training" 2>/dev/null; }

train() {
    # shellcheck disable=SC2086 # TRAIN are several words
    setsid "$PYTHON" -m service.cli train "$DATA" -o "$STUDENT" --bits-only --width "$WIDTH" --init "$TEACHER" --teacher "$TEACHER" \
        --device "$DEVICE" --launch "$LAUNCH" --save-every "$SAVE" $TRAIN >>"$OUT/train.txt" 2>&1 &
    training=$!
}

# SECONDS: lets it train for so long, or until it ends
wait_for() {
    local until=$((SECONDS + $1))
    while trains && [ "$SECONDS" -lt "$until" ]; do sleep 1; done
}

export_student() {
    [ -f "$STUDENT/checkpoint.pt" ] || return 0
    "$PYTHON" -m service.cli export "$STUDENT/checkpoint.pt" "$OUT/student.safetensors" --name student >"$OUT/export.txt" 2>&1 ||
        tail -1 "$OUT/export.txt"
}

# STEP...: of tests/gpu.sh, while nothing trains
measure() {
    signal STOP
    say "$*"
    # shellcheck disable=SC2086
    OUT=$OUT/checks tests/gpu.sh "$@" | tail -n 60
    signal CONT
    export_student
}

# Every layer of the student's own network; with Nsight Compute where it is there.
profile() {
    local ncu=() model=nuclei-small
    [ -f "$OUT/student.safetensors" ] && model=$OUT/student.safetensors
    signal STOP
    say profile
    command -v ncu >/dev/null && ncu=(ncu --set full --launch-count 48 -f -o "$OUT/profile")
    timeout "$PROFILE_S" "${ncu[@]}" "$PYTHON" -m service.cli bench --device "$DEVICE" --model "$model" --runs 2 --peak \
        >"$OUT/profile.txt" 2>&1 || tail -n 2 "$OUT/profile.txt"
    signal CONT
}

# of every LOG_EVERY steps the log has their samples a second: the median, pauses being few
speed() {
    cut -d, -f6 "$STUDENT/log.csv" | grep '^[0-9]' | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
    grep 'steps are plain' "$OUT/train.txt"
}

finish() {
    signal CONT
    signal INT # saves, and ends
    wait_for "$END_S"
    signal KILL
    say "the student: $(tail -n 1 "$STUDENT/log.csv" 2>/dev/null)"
    say "samples a second: $(speed)"
    export_student
    [ -f "$OUT/student.safetensors" ] || return 1
    local left
    left=$(remaining)
    timeout "$((left > 10 ? left : 10))" "$PYTHON" -m service.cli eval "$OUT/student.safetensors" "$DATA" --part validation \
        --device "$DEVICE" | tee "$OUT/scores.txt"
}

mkdir -p "$OUT"
trap 'signal CONT; signal INT' EXIT
OUT=$OUT/checks tests/gpu.sh build || exit
train
say "trains"
wait_for "$FIRST_S"
trains || { tail -n 5 "$OUT/train.txt"; grep -q '^checkpoint:' "$OUT/train.txt" || exit 1; }
# shellcheck disable=SC2086
measure $CHECKS
wait_for "$(remaining $((PROFILE_S + 2 * END_S)))"
profile
wait_for "$(remaining $((2 * END_S)))"
finish
