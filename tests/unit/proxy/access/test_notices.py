"""Sentences about programs as values, without a terminal."""

from proxy.access import notices
from proxy.model import Phase, Progress


def test_a_progress_line_never_wraps() -> None:
    progress = Progress(Phase.STARTING, "starting workspace " + "x" * 200)
    line = notices.progress_line(progress, 3.2, 1, 40, unicode=True)
    assert line.startswith(notices.ERASE_LINE)
    assert len(line.removeprefix(notices.ERASE_LINE).decode()) == 39


def test_a_bug_says_no_more_than_a_reference() -> None:
    assert notices.failure(ValueError("secret"), "ref", pty=True) == (
        b"fairlead: internal error (reference ref)\r\n"
    )
