"""Runs commands of `fairlead` in this process, on a home of their own."""

import asyncio
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog.testing

from proxy.cli import main
from proxy.identity.store import SqlDirectory


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def fairlead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in [name for name in os.environ if name.startswith("FAIRLEAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path / "home"))

    def run(*words: str, stdin: str = "", **environ: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["fairlead", *words])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            for name, value in environ.items():
                patch.setenv(name, value)
            # Loggers are kept once used; those of other tests must not write where this command did.
            patch.setattr("proxy.log.configure", lambda *_: None)
            with structlog.testing.capture_logs(), pytest.raises(SystemExit) as ended:
                main.main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def database(tmp_path: Path) -> None:
    """Make the database of that home, as the start of a proxy does; commands do not."""

    async def make() -> None:
        url = f"sqlite+aiosqlite:///{tmp_path}/home/fairlead.db"
        await (await SqlDirectory.open(url, upgrade=True)).close()

    asyncio.run(make())
