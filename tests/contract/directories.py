"""The stores that the directory suites run on: SQLite, and a real PostgreSQL where one is installed.

A database is migrated once; each test gets it empty.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.identity.directory import Directory
from proxy.identity.keys import PublicKey, parse_public_key
from proxy.identity.store import SqlDirectory
from tests.contract.postgres import Cluster

DEADLINE_S = 60

Replica = Callable[[], Awaitable[Directory]]
"""Opens the test's database once more, as another proxy would."""


def make_key(comment: str = "") -> PublicKey:
    public = Ed25519PrivateKey.generate().public_key()
    return parse_public_key(
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " " + comment
    )


def sqlite_url(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


async def migrate(url: str) -> None:
    await (await SqlDirectory.open(url, query_timeout_s=DEADLINE_S, upgrade=True)).close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One server for all tests; each makes databases of its own."""
    with Cluster.running() as made:
        yield made


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "fairlead.db"
    asyncio.run(migrate(sqlite_url(file)))
    return file


@pytest.fixture(scope="session")
def postgres_database(cluster: Cluster) -> str:
    name = cluster.create()
    asyncio.run(migrate(cluster.url(name)))
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the newest schema with nothing in it."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "fairlead.db")
        return sqlite_url(tmp_path / "fairlead.db")
    cluster: Cluster = request.getfixturevalue("cluster")
    database: str = request.getfixturevalue("postgres_database")
    cluster.sql(
        database,
        "TRUNCATE users, keys, revoked_keys, removals, grants, onboardings, web_sessions, web_links,"
        " web_shares RESTART IDENTITY",
        "UPDATE installation SET users = 0, keys = 0",
        "TRUNCATE proxies, connections, programs, session_kills RESTART IDENTITY",
        "UPDATE counters SET next = 0",
    )
    return cluster.url(database)


@pytest.fixture
async def replica(database_url: str) -> AsyncIterator[Replica]:
    async with AsyncExitStack() as stack:

        async def open_() -> Directory:
            store = await SqlDirectory.open(database_url, query_timeout_s=DEADLINE_S)
            stack.push_async_callback(store.close)
            return store

        yield open_


@pytest.fixture
async def directory(replica: Replica) -> Directory:
    return await replica()
