#!/usr/bin/env bash
# tests/minimal.sh WHEEL: install it by itself, away from the sources and without PyTorch, and serve one image with it.
set -euo pipefail
wheel=$(realpath "$1")
image=$(realpath "$(dirname "$0")/data/nuclei/images/27c30f901149.png")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"${PYTHON:-python3}" -m venv "$folder/minimal"
cd "$folder"
minimal/bin/python -m pip --disable-pip-version-check install --quiet "$wheel"
if minimal/bin/python -c 'import torch' 2>/dev/null; then
    echo "the minimal install holds torch" >&2
    exit 1
fi
minimal/bin/mbunet selftest --kernel portable
minimal/bin/mbunet segment "$image" -o here.png

exec {greeting}< <(exec minimal/bin/mbunet serve --port 0 2>server.log)
server=$!
trap 'kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
read -r -u "$greeting" line || { cat server.log >&2; exit 1; }
[[ $line =~ http://[0-9.:]+ ]]
minimal/bin/mbunet segment "$image" -o served.png --url "${BASH_REMATCH[0]}"
cmp here.png served.png
echo "the wheel serves by itself: $(basename "$wheel")"
