"""What every backend promises. Local processes keep it on every machine, pods where there is a cluster."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from proxy.errors.programs import WorkspaceHeld
from proxy.errors.workspaces import WorkspaceNotFound, WorkspaceUnstartable
from proxy.model import Phase, Progress, WorkspaceName
from proxy.userstring import parse
from proxy.workspaces.backend import Stop, WorkspacePhase, WorkspaceRequest
from proxy.workspaces.provisioner import address
from tests.cluster.cluster import STOP, USER_MADE_AT, request, silent, user_called
from tests.contract.backends import Site, site

__all__ = ["site"]

NAME = request().name


def asked(site: Site, **fields: object) -> WorkspaceRequest:
    return request(site.blueprint, **fields)  # type: ignore[arg-type]


async def test_a_workspace_starts_is_found_again_and_is_whose_it_is(site: Site) -> None:
    told: list[Progress] = []
    async with site.proxy() as backend:
        assert await backend.find(NAME) is None
        first = await backend.ensure(asked(site), told.append)
        assert first.workspace == NAME
        assert told[0].phase is Phase.PREPARING
        assert told[-1] == Progress(Phase.READY, f"workspace {NAME} is ready")
        assert len(set(told)) == len(told)
        told.clear()
        assert await backend.ensure(asked(site), told.append) == first
        assert told == []
        record = await backend.find(NAME)
        assert record is not None
        assert (record.name, record.user, record.blueprint) == (NAME, "alice", "dev")
        assert record.user_string == "alice+dev"
        assert [one.name for one in await backend.list()] == [NAME]
        assert await site.run(first, "echo here") == "here\n"
        for may_create in (True, False):
            with pytest.raises(WorkspaceNotFound, match=r"no workspace .* of mallory"):
                await backend.ensure(asked(site, user="mallory", may_create=may_create), silent)


async def test_callers_that_overlap_join_one_start_and_one_may_leave(site: Site) -> None:
    told: list[list[Progress]] = [[] for _ in range(8)]
    async with site.proxy() as backend:
        leaving = asyncio.ensure_future(backend.ensure(asked(site), silent))
        staying = [asyncio.ensure_future(backend.ensure(asked(site), one.append)) for one in told]
        await asyncio.sleep(0.05)
        leaving.cancel()
        endpoints = await asyncio.gather(*staying)
        assert leaving.cancelled()
    assert len(set(endpoints)) == 1
    assert all(one[-1].phase is Phase.READY for one in told)


async def test_two_proxies_start_one_workspace_once_and_it_outlives_both(site: Site) -> None:
    async with site.proxy() as one, site.proxy() as other:
        endpoints = await asyncio.gather(
            *(backend.ensure(asked(site), silent) for backend in (one, other) for _ in range(10))
        )
        assert len(set(endpoints)) == 1
    async with site.proxy() as third:
        assert await third.ensure(asked(site), silent) == endpoints[0]


async def test_one_that_died_is_started_anew_and_can_be_told_from_the_old_one(site: Site) -> None:
    async with site.proxy() as backend:
        old = await backend.ensure(asked(site), silent)
        await site.run(old, "echo kept > kept")
        await site.kill(old)
        async with asyncio.timeout(60):
            while (new := await backend.ensure(asked(site), silent)).generation == old.generation:
                await asyncio.sleep(0.05)  # the kernel, or the cluster, has not told yet
        assert await site.run(new, "cat kept") == "kept\n"


async def test_stopping_is_noted_and_keeps_the_home_and_starting_takes_the_note_away(site: Site) -> None:
    async with site.proxy() as backend, site.proxy() as other:
        old = await backend.ensure(asked(site), silent)
        await other.ensure(asked(site), silent)
        await site.run(old, "echo kept > kept")
        await backend.stop(NAME, STOP)
        await backend.stop(NAME, Stop("somebody later", STOP.at))
        record = await backend.find(NAME)
        assert record is not None
        assert (record.phase, record.stop) == (WorkspacePhase.STOPPED, STOP)
        new = await other.ensure(asked(site), silent)
        assert new.generation != old.generation
        assert await site.run(new, "cat kept") == "kept\n"
        record = await other.find(NAME)
        assert record is not None
        assert record.phase in {WorkspacePhase.RUNNING, WorkspacePhase.STARTING}
        assert record.stop is None


async def test_deleting_keeps_the_home_unless_it_is_purged(site: Site) -> None:
    async with site.proxy() as backend:
        await site.run(await backend.ensure(asked(site), silent), "echo kept > kept")
        await backend.delete(NAME, purge=False)
        assert await backend.find(NAME) is None
        assert await backend.list() == []
        assert await site.run(await backend.ensure(asked(site), silent), "cat kept") == "kept\n"
        await backend.delete(NAME, purge=True)
        for act in (backend.delete(NAME, purge=True), backend.events(NAME), backend.stop(NAME, STOP)):
            with pytest.raises(WorkspaceNotFound):
                await act


async def test_a_named_workspace_is_found_and_never_made(site: Site) -> None:
    async with site.proxy() as backend:
        named = asked(site, may_create=False)
        with pytest.raises(WorkspaceNotFound, match="of alice"):
            await backend.ensure(named, silent)
        assert await backend.list() == []
        endpoint = await backend.ensure(asked(site), silent)
        assert await backend.ensure(named, silent) == endpoint
        assert [line async for line in backend.logs(NAME, follow=False, tail=1)]


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "a\0b", "A", "-a", "a" * 129])
async def test_a_name_is_never_a_path(site: Site, name: str) -> None:
    async with site.proxy() as backend:
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(asked(site, name=name), silent)
        with pytest.raises(WorkspaceNotFound):
            await backend.stop(WorkspaceName(name), STOP)
        assert await backend.list() == []


async def test_a_stop_on_request_is_respected_until_somebody_asks_for_a_start(site: Site) -> None:
    stop = Stop("alice", datetime.now(UTC))
    async with site.proxy() as backend, site.proxy() as other:
        await backend.ensure(asked(site), silent)
        stopping = asyncio.ensure_future(backend.stop(NAME, stop))
        while not stopping.done():  # from its order on, not from its end
            with suppress(WorkspaceHeld):
                await other.ensure(asked(site, hold_s=900), silent)
            await asyncio.sleep(0.1)
        await stopping
        for held in (backend, other):
            with pytest.raises(WorkspaceHeld, match="stopped by you"):
                await held.ensure(asked(site, hold_s=900), silent)
        await backend.ensure(asked(site), silent)
        await other.ensure(asked(site, hold_s=900), silent)


async def test_a_stop_that_nobody_asked_for_is_undone_by_a_connection(site: Site) -> None:
    async with site.proxy() as backend:
        await backend.ensure(asked(site), silent)
        await backend.stop(NAME, Stop("idle", datetime.now(UTC)))
        await backend.ensure(asked(site, hold_s=900), silent)


async def test_a_request_that_may_not_start_finds_what_runs_and_starts_nothing(site: Site) -> None:
    async with site.proxy() as backend:
        looking = replace(asked(site), may_start=False)
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(looking, silent)
        assert await backend.find(NAME) is None
        endpoint = await backend.ensure(asked(site), silent)
        assert (await backend.ensure(looking, silent)).generation == endpoint.generation
        await backend.stop(NAME, Stop("idle", datetime.now(UTC)))
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(looking, silent)
        found = await backend.find(NAME)
        assert found is not None
        assert found.phase is WorkspacePhase.STOPPED


async def test_a_workspace_is_located_while_it_runs_and_by_that_never_started(site: Site) -> None:
    async with site.proxy() as backend, site.proxy() as other:
        assert await other.locate(NAME) is None
        endpoint = await backend.ensure(asked(site), silent)
        async with asyncio.timeout(60):
            while (found := await other.locate(NAME)) is None:
                await asyncio.sleep(0.1)  # a cluster asks whether it is ready once a second
        assert (found.address, found.generation, found.user) == (
            endpoint.address,
            endpoint.generation,
            "alice",
        )
        await backend.upkeep()
        await backend.stop(NAME, STOP)
        assert await other.locate(NAME) is None


ALICE = user_called("alice")
LATER = user_called("alice", id="id-of-a-later-alice", uid=10_002, created_at=USER_MADE_AT.replace(year=2039))
BOB = user_called("bob", uid=10_003)
SECRET = "umask 077; echo hers > secret"


async def test_a_later_user_of_a_name_gets_no_workspace_of_the_first(site: Site) -> None:
    async with site.proxy() as backend:
        first = await backend.ensure(asked(site), silent)
        await site.run(first, SECRET)
        found = await backend.holder(NAME)
        assert found is not None
        assert (found.user, found.owner) == ("alice", ALICE.id)
        for may_create in (True, False):
            with pytest.raises(WorkspaceNotFound, match=r"no workspace .* of alice"):
                await backend.ensure(asked(site, as_user=LATER, may_create=may_create), silent)
        await backend.stop(NAME, STOP)
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(asked(site, as_user=LATER), silent)
        own = await address(backend, LATER, parse("alice+dev"), "dev")
        assert own != NAME
        assert await address(backend, ALICE, parse("alice+dev"), "dev") == NAME
        again = await backend.ensure(asked(site), silent)
        assert await site.run(again, "cat secret") == "hers\n"


async def test_a_home_that_was_kept_stays_its_user_s(site: Site) -> None:
    async with site.proxy() as backend:
        await site.run(await backend.ensure(asked(site), silent), SECRET)
        await backend.delete(NAME, purge=False)
        assert await backend.find(NAME) is None
        found = await backend.holder(NAME)
        assert found is not None
        assert (found.user, found.owner) == ("alice", ALICE.id)
        assert [(one.name, one.owner) for one in await backend.kept()] == [(NAME, ALICE.id)]
        assert await address(backend, LATER, parse("alice+dev"), "dev") != NAME
        with pytest.raises((WorkspaceNotFound, WorkspaceUnstartable)):
            await backend.ensure(asked(site, as_user=LATER), silent)
        again = await backend.ensure(asked(site), silent)
        assert await backend.kept() == []
        assert await site.run(again, "cat secret") == "hers\n"
        await backend.delete(NAME, purge=False)
        await backend.delete(NAME, purge=True)
        assert await backend.holder(NAME) is None


async def test_a_workspace_is_handed_over_with_its_home_and_without_its_processes(site: Site) -> None:
    async with site.proxy() as backend:
        first = await backend.ensure(asked(site), silent)
        await site.run(first, SECRET)
        await backend.give(NAME, BOB, STOP)
        record = await backend.find(NAME)
        assert record is not None
        assert (record.user, record.owner, record.phase) == ("bob", BOB.id, WorkspacePhase.STOPPED)
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(asked(site), silent)
        now = await backend.ensure(asked(site, as_user=BOB, may_create=False), silent)
        assert now.generation != first.generation
        assert await site.run(now, "cat secret") == "hers\n"
        # Also a home without a workspace.
        await backend.delete(NAME, purge=False)
        await backend.give(NAME, LATER, STOP)
        now = await backend.ensure(asked(site, as_user=LATER), silent)
        assert await site.run(now, "cat secret") == "hers\n"
        with pytest.raises(WorkspaceNotFound):
            await backend.give(WorkspaceName("there-is-none"), BOB, STOP)
