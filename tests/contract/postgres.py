"""A private PostgreSQL for tests: a cluster of its own on a Unix socket, without durability."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from sqlalchemy import URL

DEADLINE_S = 60

_PATIENT = "-c deadlock_timeout=30s"
"""PostgreSQL ends the one of two blocked transactions that looks first: not the one that drops tables."""


def binaries() -> Path:
    """Say where the server's programs are, or skip the test."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        candidates.insert(0, Path(found).parent)
    for place in candidates:
        if all((place / program).exists() for program in ("initdb", "pg_ctl", "psql")):
            return place
    pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")


class Cluster:
    """One server; `url` names a database in it."""

    def __init__(self, listen: str = "", port: int = 5432) -> None:
        """Serve at an address as well, where `role` may log in by password; 5432 is a name on the socket."""
        self._bin = binaries()
        # Short: the path of a socket has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="fl-pg-", dir="/tmp"))
        self._account: dict[str, int] = {}
        if os.geteuid() == 0:  # the server refuses to be root
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        self._count = 0
        self._listen, self._port = listen, port

    @classmethod
    @contextmanager
    def running(cls, listen: str = "", port: int = 5432) -> Iterator[Self]:
        """Run a server of its own while inside."""
        made = cls(listen, port)
        try:
            made.start()
            yield made
        finally:
            made.close()

    def start(self) -> None:
        """Make the cluster and wait until it answers."""
        self._run("initdb", "-D", "data", "-U", "fairlead", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        if self._listen:
            with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all scram-sha-256\n")
        self.resume()

    def resume(self) -> None:
        """Start the server of a cluster that is there."""
        options = (
            f"-c listen_addresses={self._listen} -p {self._port} -k {self.directory}"
            " -c fsync=off -c max_connections=200"
        )
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")

    def halt(self) -> None:
        """Stop the server at once; what it wrote stays."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")

    @contextmanager
    def stand_in(self) -> Iterator[None]:
        """Put an empty server in the place of this one while inside: the same address, another cluster."""
        data, kept = self.directory / "data", self.directory / "kept"
        self.halt()
        data.rename(kept)
        try:
            self.start()
            yield
        finally:
            if (data / "postmaster.pid").exists():
                self.halt()
            shutil.rmtree(data)
            kept.rename(data)
            self.resume()

    def dump(self, database: str) -> Path:
        """Back a database up, for `restore`."""
        self._run("pg_dump", *self._connection(database), "-Fc", "-f", f"{database}.dump")
        return self.directory / f"{database}.dump"

    def restore(self, database: str, dump: Path, *options: str) -> None:
        """Run pg_restore, with options that say which part."""
        self._run("pg_restore", *self._connection(database), "--exit-on-error", *options, str(dump))

    def close(self) -> None:
        """Stop the server and forget everything."""
        if (self.directory / "data" / "postmaster.pid").exists():
            self.halt()
        shutil.rmtree(self.directory)

    def create(self) -> str:
        """Make a database and give its name."""
        self._count += 1
        name = f"test{self._count}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name

    def sql(self, database: str, *statements: str) -> str:
        """Run statements, one transaction each, and give what they print."""
        words = [word for statement in statements for word in ("-c", statement)]
        options = ("-X", "-q", "-At", "-v", "ON_ERROR_STOP=1")
        return self._run("psql", *options, *self._connection(database), *words)

    def _connection(self, database: str) -> tuple[str, ...]:
        return ("-h", str(self.directory), "-p", str(self._port), "-U", "fairlead", "-d", database)

    def url(self, database: str) -> str:
        """Write the URL that settings take."""
        made = URL.create(
            "postgresql+asyncpg", "fairlead", database=database, query={"host": str(self.directory)}
        )
        return made.render_as_string(hide_password=False)

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [self._bin / program, *words],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "PGOPTIONS": _PATIENT},
            **self._account,
        )
        assert done.returncode == 0, f"{program} {words}: {done.stdout}"
        return done.stdout
