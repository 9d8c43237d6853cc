"""The candidate: `fairlead serve` with a home of its own, one static user and one plain blueprint."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, run

import psutil

from bench.processes import end_strangers, family_of, own_cpu_s, reaped_cpu_s
from bench.targets import BenchError, Target, announced, free_port, serving

USER = "bench"
_BLUEPRINT = "dev"
_ENTRY = "import sys; from proxy.__main__ import main; sys.argv[0] = 'fairlead'; sys.exit(main())"


@contextmanager
def fairlead_target(
    label: str,
    folder: Path,
    identity: Path,
    env: dict[str, str] | None = None,
    blueprint: str = "{}\n",
) -> Iterator[Target]:
    """Run Fairlead from this checkout for as long as the block lasts, workspaces included.

    `env` is added to its environment.

    Raises: BenchError when it does not start.
    """
    home = folder / "fairlead"
    (home / "blueprints").mkdir(parents=True)
    (home / "blueprints" / f"{_BLUEPRINT}.yaml").write_text(blueprint)
    port = free_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("FAIRLEAD_")}
    environ |= {
        "FAIRLEAD_HOME": str(home),
        "FAIRLEAD_LISTEN": f"127.0.0.1:{port}",
        "FAIRLEAD_PROTECTION__MAX_SESSIONS_PER_USER": "10000",  # idle counts by the thousand
        **(env or {}),
    }
    _fairlead(["database", "upgrade"], environ)
    _fairlead(["user", "add", USER, "--key", str(identity.with_suffix(".pub"))], environ)
    try:
        with serving([*_command(), "serve"], port, home / "serve.log", environ) as process:
            yield _target(label, home, port, identity, psutil.Process(process.pid))
    finally:
        left = _shellds(home)
        sockets = _socket_folders(left)
        end_strangers(left)
        for folder in sockets:
            shutil.rmtree(folder, ignore_errors=True)


def _target(label: str, home: Path, port: int, identity: Path, root: psutil.Process) -> Target:
    def proxies() -> list[psutil.Process]:
        inside = {process.pid for shelld in _shellds(home) for process in family_of(shelld)}
        return [each for each in family_of(root) if each.pid not in inside and not _wraps_workspace(each)]

    def cpu() -> dict[str, float]:
        shellds = _shellds(home)
        return {
            "proxy": own_cpu_s(proxies()),
            "shelld": own_cpu_s(shellds),
            "program": reaped_cpu_s(shellds),
        }

    return Target(
        label=label,
        login=f"{USER}+{_BLUEPRINT}",
        port=port,
        identity=identity,
        known_hosts=home / "known_hosts",
        scratch="",
        cpu=cpu,
        servers=proxies,
        quiet=lambda: True,
        product=announced(port),
    )


def _command() -> list[str]:
    return [sys.executable, "-c", _ENTRY]


def _fairlead(words: list[str], environ: dict[str, str]) -> None:
    done = run([*_command(), *words], env=environ, stdin=DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(
            f"fairlead {' '.join(words[:2])} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
        )


def _socket_folders(shellds: list[psutil.Process]) -> set[Path]:
    """Name where these keep their sockets, outside the home: `<folder>/<workspace>/shelld.sock`."""
    found = set()
    for process in shellds:
        with suppress(psutil.Error):
            urls = [word for word in process.cmdline() if word.startswith("unix://")]
            found |= {Path(url.removeprefix("unix://")).parent.parent for url in urls}
    return {folder for folder in found if folder.name.startswith("fairlead-")}


def _shellds(home: Path) -> list[psutil.Process]:
    """Find the shelld processes of this home: they outlive the proxy on purpose, so parentage cannot tell."""
    return [process for process in psutil.process_iter() if _is_shelld(process, str(home))]


def _wraps_workspace(process: psutil.Process) -> bool:
    """Recognise the tool that set a workspace apart and stays as the parent of its shelld."""
    with suppress(psutil.Error):
        return any(word in ("unshare", "bwrap") for word in (process.name(), *process.cmdline()[:1]))
    return False


def _is_shelld(process: psutil.Process, home: str) -> bool:
    with suppress(psutil.Error):
        words = process.cmdline()
        if any(word == "shelld" or word.endswith("/shelld") for word in words[:8]):
            return home in " ".join(words) or any(home in value for value in process.environ().values())
    return False
