"""Lines of /proc."""

import os

from shelld.launch import proc

LINE = "42 (a (b) c) S 1 42 40 0 -1 4194560 1 2 3 4 100 200 300 400 20 0 1 0 5 6000 7 18446744073709551615\n"


def test_stat_line_with_a_difficult_name() -> None:
    found = proc.parse_stat(LINE)
    assert (found.pid, found.parent, found.session, found.state) == (42, 1, 40, "S")
    assert found.cpu_s == 1000 / os.sysconf("SC_CLK_TCK")
    assert found.resident_bytes == 7 * os.sysconf("SC_PAGE_SIZE")


def test_descendants_are_all_generations() -> None:
    family = [
        proc.Process(pid, parent, pid, "S", 0.0, 0)
        for pid, parent in ((1, 0), (2, 1), (3, 2), (4, 3), (9, 8))
    ]
    assert [process.pid for process in proc.descendants(2, family)] == [3, 4]


def test_own_process_is_seen() -> None:
    assert os.getpid() in {process.pid for process in proc.processes()}
    assert proc.ignores_hup(2**22 + 1)  # gone
