"""Numbers that processes have in common, also when one of them is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from service.processes.table import ENGINE, FRONT_ENDS, SUPERVISOR, SharedTally, Table


def in_another_process(work: Callable[[], object]) -> int:
    """Its exit status; `work` must end by itself, or by a signal."""
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_all_parts_count_and_none_passes_the_limit() -> None:
    table = Table.of(front_ends=2)
    one, other = (SharedTally(table, FRONT_ENDS + number, "memory") for number in (0, 1))
    assert one.add(60, most=100)
    assert not other.add(41, most=100)
    assert in_another_process(lambda: other.add(40, most=100)) == 0
    assert (one.own, one.total, other.total) == (60, 100, 100)
    assert not one.add(1, most=100)
    assert one.add(-60)
    assert one.total == 40


def test_the_dead_hold_nothing_but_the_lines_that_they_lost() -> None:
    table = Table.of(front_ends=1)
    its = SharedTally(table, FRONT_ENDS, "streams")

    def die() -> None:
        its.add(3)
        table.rows[FRONT_ENDS].log_dropped = 2
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_another_process(die) == -signal.SIGKILL
    assert its.total == 3
    table.clear(FRONT_ENDS)
    assert its.total == 0
    assert [row.log_dropped for row in table.rows] == [2, 0, 0]


def test_processes_are_known_by_name_while_they_live() -> None:
    table = Table.of(front_ends=2)
    for row, pid in ((SUPERVISOR, 1), (ENGINE, 2), (FRONT_ENDS + 1, 3)):
        table.rows[row].pid = pid
    assert table.pids == {"supervisor": 1, "engine": 2, "front-1": 3}
