"""A real PostgreSQL server that stops and starts again: a query waits for it, as long as a setting says."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from proxy.errors.stores import StoreError
from proxy.storage.database import Database
from tests.contract.directories import DEADLINE_S
from tests.contract.postgres import Cluster
from tests.wire.harness import Fairlead


@pytest.fixture
def own_cluster() -> AsyncIterator[Cluster]:
    """One that no other test uses."""
    with Cluster.running() as made:
        yield made


async def opened(cluster: Cluster, failover_wait_s: float) -> Database:
    url = cluster.url(cluster.create())
    return await Database.open(url, query_timeout_s=DEADLINE_S, failover_wait_s=failover_wait_s, upgrade=True)


async def names(database: Database) -> list[str]:
    async with database.reading() as connection:
        return list((await connection.execute(sa.text("SELECT name FROM users"))).scalars())


async def test_a_query_waits_for_a_server_that_is_down_and_comes_back(own_cluster: Cluster) -> None:
    database = await opened(own_cluster, 60)
    try:
        assert await names(database) == []
        await asyncio.to_thread(own_cluster.halt)
        waiting = asyncio.ensure_future(names(database))
        await asyncio.sleep(0.3)  # some attempts; fewer on a busy machine change nothing
        assert not waiting.done()
        await asyncio.to_thread(own_cluster.resume)
        assert await waiting == []
    finally:
        await database.close()


async def test_a_query_waits_for_a_server_that_is_shutting_down(own_cluster: Cluster) -> None:
    """New connections get an answer of the server's own (SQLSTATE 57P03) until the last old one has ended."""
    database = await opened(own_cluster, 60)
    hasty = Database(str(own_cluster.url("test1")), query_timeout_s=DEADLINE_S)
    held = await asyncpg.connect(host=str(own_cluster.directory), user="fairlead", database="test1")
    try:
        await database.close()  # the pool's own connections would hold the server, too
        own_cluster._run("pg_ctl", "-D", "data", "-m", "smart", "-W", "stop")
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    async with hasty.reading():
                        await asyncio.sleep(0.01)
                except StoreError as exc:
                    refusal = str(exc)
                    break
        assert "shutting down" in refusal
        waiting = asyncio.ensure_future(names(database))
        await held.close()
        async with asyncio.timeout(DEADLINE_S):
            while (own_cluster.directory / "data" / "postmaster.pid").exists():
                await asyncio.sleep(0.05)
        await asyncio.to_thread(own_cluster.resume)
        assert await waiting == []
    finally:
        await held.close()
        await hasty.close()
        await database.close()


async def test_a_question_that_was_under_way_is_asked_again(own_cluster: Cluster) -> None:
    database = await opened(own_cluster, 60)
    try:
        slow = sa.select(sa.literal("asked").label("word"), sa.func.pg_sleep(3))
        waiting = asyncio.ensure_future(database.ask(slow))
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state = 'active' AND query LIKE '%pg_sleep(%' AND pid <> pg_backend_pid()"
        )
        async with asyncio.timeout(DEADLINE_S):
            while await asyncio.to_thread(own_cluster.sql, "test1", query) == "0":
                await asyncio.sleep(0.05)
        await asyncio.to_thread(own_cluster.halt)
        await asyncio.to_thread(own_cluster.resume)
        (row,) = await waiting
        assert row["word"] == "asked"
    finally:
        await database.close()


async def test_without_the_setting_it_fails_at_once_and_names_the_host(own_cluster: Cluster) -> None:
    database = await opened(own_cluster, 0)
    try:
        await asyncio.to_thread(own_cluster.halt)
        with pytest.raises(StoreError, match=rf"the database {own_cluster.directory}/test1 failed: "):
            await names(database)
        await asyncio.to_thread(own_cluster.resume)
        assert await names(database) == []
    finally:
        await database.close()


async def test_a_login_that_is_refused_by_the_server_is_not_tried_again(own_cluster: Cluster) -> None:
    url = own_cluster.url("no_such_database")
    with pytest.raises(StoreError, match='database "no_such_database" does not exist'):
        await Database.open(url, query_timeout_s=DEADLINE_S, failover_wait_s=10_000)


def test_a_login_waits_while_the_database_fails_over(own_cluster: Cluster, tmp_path: Path) -> None:
    server = Fairlead(tmp_path)
    server.extra_env = {
        "FAIRLEAD_IDENTITY__DATABASE_URL": own_cluster.url(own_cluster.create()),
        "FAIRLEAD_IDENTITY__FAILOVER_WAIT_S": "60",
    }
    server.prepare()
    try:
        server.start()
        assert server.ssh("echo before").stdout == b"before\n"
        own_cluster.halt()
        client = subprocess.Popen(
            server.command("ssh", "fl", "echo after"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                client.wait(1)
            own_cluster.resume()
            assert client.communicate(timeout=90)[0] == b"after\n"
        finally:
            client.kill()
            client.wait()
    finally:
        server.close()
