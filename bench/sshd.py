"""The yardstick: OpenSSH's `sshd`, with its own keys, on a free port, in a directory of its own."""

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bench.processes import family_of, own_cpu_s, reaped_cpu_s
from bench.targets import BenchError, Target, announced, free_port, make_key, serving

HOW_TO_INSTALL = "no sshd found: install one to compare with (Debian and Ubuntu: apt install openssh-server)"

_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin"
_SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
)
_PRIVILEGE_SEPARATION = Path("/run/sshd")


def find_sshd() -> str | None:
    """Return the path of `sshd`, which is often outside an ordinary user's PATH."""
    return shutil.which("sshd") or shutil.which("sshd", path=_SYSTEM_FOLDERS)


@contextmanager
def sshd_target(label: str, folder: Path, identity: Path) -> Iterator[Target]:
    """Run a direct `sshd` as the current user, root or not, for as long as the block lasts.

    Raises: BenchError when there is none, or it does not start.
    """
    program = find_sshd()
    if program is None:
        raise BenchError(HOW_TO_INSTALL)
    folder.mkdir()
    home = folder / "home"
    home.mkdir()
    port = free_port()
    config = _write_config(folder, home, port, identity)
    with (
        privilege_separation_folder(),
        serving([program, "-D", "-e", "-f", str(config)], port, folder / "sshd.log", adopts=True) as process,
    ):
        listener = psutil.Process(process.pid)
        yield Target(
            label=label,
            login=pwd.getpwuid(os.getuid()).pw_name,
            port=port,
            identity=identity,
            known_hosts=folder / "known_hosts",
            scratch=f"{home}/",
            cpu=lambda: _cpu(listener),
            servers=lambda: _sshds(listener),
            quiet=lambda: not listener.children(),
            product=announced(port),
        )


def _sshds(listener: psutil.Process) -> list[psutil.Process]:
    named = []
    for process in family_of(listener):
        with suppress(psutil.Error):
            if process.name().startswith("sshd"):
                named.append(process)
    return named


def _cpu(listener: psutil.Process) -> dict[str, float]:
    """The listener waits for its connections, so a finished one is in its books with the program it ran.

    Of an ordinary user's `sshd`, the process that does the work is nobody's when it ends; see `adopts`.
    """
    family = family_of(listener)
    return {"sshd and program": own_cpu_s(family) + reaped_cpu_s(family)}


def _write_config(folder: Path, home: Path, port: int, identity: Path) -> Path:
    host_key = make_key(folder / "host_key")
    shutil.copy(identity.with_suffix(".pub"), folder / "authorized_keys")
    sftp_server = next((path for path in _SFTP_SERVERS if Path(path).exists()), "internal-sftp")
    lines = [
        "ListenAddress 127.0.0.1",
        f"Port {port}",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        f"PidFile {folder}/sshd.pid",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UseDNS no",
        "PrintMotd no",
        "PrintLastLog no",
        "MaxStartups 4096",
        "MaxSessions 1000",
        # A fresh home, as the workspace has: what the user's own start-up files cost is not sshd's doing.
        f"SetEnv HOME={home}",
        f"Subsystem sftp {sftp_server}",
    ]
    config = folder / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    return config


@contextmanager
def privilege_separation_folder() -> Iterator[None]:
    """Provide the empty directory that a root `sshd` insists on, where no service has made it."""
    make = os.getuid() == 0 and not _PRIVILEGE_SEPARATION.exists()
    if make:
        with suppress(OSError):
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755)
    try:
        yield
    finally:
        if make:
            with suppress(OSError):
                _PRIVILEGE_SEPARATION.rmdir()
