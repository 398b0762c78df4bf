"""What a table or a sweep does not take is refused, not passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import cli

FINE_TUNING = ["--over", "fine-tuning", "--init", "nuclei-small"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([*FINE_TUNING, "--test"], "neither --test nor --paper"),
        ([*FINE_TUNING, "--paper", "Nuclei"], "neither --test nor --paper"),
        (["--images", "10"], "--images is of --over fine-tuning"),
        (["--init", "nuclei-small"], "and no other table"),
    ],
)
def test_flags_of_another_table_are_refused(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["table", str(tmp_path), "-o", str(tmp_path / "out"), *flags]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "unused"),
    [
        (["--over", "widths", "--width", "8", "--zeros", "0"], "--width, --zeros"),
        (["--annealing", "0"], "--annealing"),
        (["--over", "zeros", "--zeros", "0.5", "--uniform"], "--zeros, --uniform"),
        (["--over", "bits", "--configurations", "64"], "--configurations"),
        (["--widths", "8"], "--widths"),
    ],
)
def test_flags_that_a_sweep_has_no_use_for_are_refused(
    flags: list[str], unused: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", str(tmp_path), "-o", str(tmp_path / "out"), *flags]) == 1
    assert capsys.readouterr().err.endswith(f" has no use for {unused}\n")
