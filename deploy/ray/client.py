"""Segment a folder by a server, or by a cluster of them, and lose nothing: every request is tried until it is answered.

    python deploy/ray/client.py http://HOST:8000 IMAGES -o MASKS

Masks that are there already are left alone, so what was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WORTH_ANOTHER_TRY = frozenset({429, 500, 502, 503, 504})
"""Refused for now, or lost with its machine: Ray answers 500 for what a replica had taken when it died."""


class GaveUpError(Exception):
    """The server did not answer within the patience; the last failure is the cause."""


def segment(
    url: str,
    image: bytes,
    patience_s: float = 120.0,
    failed: Callable[[Exception], None] = lambda error: None,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The mask (PNG) of an image file; `failed` is told of every try that was not the last.

    Waits as long as Retry-After says, else 0.1 s and twice as long each time, at most 5 s. Raises GaveUpError after
    `patience_s`, and HTTPError for what another try cannot change: no image, too large, no such model.
    """
    request = urllib.request.Request(f"{url}/segment", image, {"Content-Type": "application/octet-stream"})
    end, pause_s = time.monotonic() + patience_s, 0.1
    while True:
        try:
            with urllib.request.urlopen(request, timeout=patience_s) as answer:
                mask: bytes = answer.read()
                return mask
        except (OSError, http.client.HTTPException) as error:  # an HTTPError is an OSError too
            if isinstance(error, urllib.error.HTTPError) and error.code not in WORTH_ANOTHER_TRY:
                raise
            wait_s = _asked_s(error) or pause_s
            if time.monotonic() + wait_s > end:
                raise GaveUpError(f"no mask after {patience_s:g} s") from error
            failed(error)
        sleep(wait_s)
        pause_s = min(2 * pause_s, 5.0)


def _asked_s(error: Exception) -> float:
    """The seconds of Retry-After, or 0 where there is none."""
    after = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    return float(after) if after.isdecimal() else 0.0


def main() -> int:
    """Segment every file of a folder; returns 1 where some have no mask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the masks, NAME.png each")
    parser.add_argument("--clients", type=int, default=16, help="requests at the same time (default: 16)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    targets = {file: args.out / f"{file.stem}.png" for file in sorted(args.images.iterdir()) if file.is_file()}
    if len(set(targets.values())) < len(targets):
        parser.error("two of the images have one name: their masks would be written to one file")
    todo = {source: target for source, target in targets.items() if not target.exists()}
    lost = 0

    def one(source: Path, target: Path) -> None:
        mask = segment(args.url, source.read_bytes())
        half_written = target.with_suffix(".part")
        half_written.write_bytes(mask)
        half_written.replace(target)

    with ThreadPoolExecutor(args.clients) as pool:
        running = {source: pool.submit(one, source, target) for source, target in todo.items()}
        for done, (source, future) in enumerate(running.items(), 1):
            if error := future.exception():
                print(f"{source}: {error}", file=sys.stderr)
                lost += 1
            print(f"\r{done}/{len(running)} images", end="", file=sys.stderr)
    print(file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
