"""Watches that go on whatever happens to them, and what is kept of what they tell."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.settings.kubernetes import KubernetesSettings
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.mirror import Mirror, Wakeups
from proxy.workspaces.kubernetes.objects import POD, Object
from proxy.workspaces.kubernetes.watch import Changed, Current, Gone, Listed, Lost, News, follow
from tests.fakes.apiserver import Answer, ApiServer, cut, listing, serving, status, stream

PODS = Query(POD, "n")


def pod(name: str, version: int, uid: str = "") -> Object:
    return {"metadata": {"name": name, "uid": uid or name, "resourceVersion": str(version)}}


def said(kind: str, name: str, version: int, uid: str = "") -> Object:
    return {"type": kind, "object": pod(name, version, uid)}


@asynccontextmanager
async def server_of(tmp_path: Path, *script: Answer) -> AsyncIterator[tuple[Api, ApiServer]]:
    server = ApiServer(list(script))
    async with serving(server, tmp_path) as kubeconfig:
        api = Api(KubernetesSettings(kubeconfig=kubeconfig, retry_for_s=0.2, retry_wait_max_s=0.2))
        try:
            yield api, server
        finally:
            await api.close()


async def told(api: Api, count: int) -> list[News]:
    found: list[News] = []
    async with asyncio.timeout(30):
        news = follow(api, PODS, wait_max_s=0.2)
        async for one in news:
            found.append(one)
            if len(found) == count:
                break
        await news.aclose()  # type: ignore[attr-defined]
    return found


async def test_a_watch_goes_on_where_it_was(tmp_path: Path) -> None:
    script = [
        listing(pod("a", 3), version="5"),
        stream(said("ADDED", "b", 6), said("BOOKMARK", "", 8)),
        stream(said("DELETED", "b", 9), then="cut"),
        status(503),
        stream(said("MODIFIED", "a", 10), then="hang"),
    ]
    async with server_of(tmp_path, *script) as (api, server):
        news = await told(api, 9)
    kinds = [type(one) for one in news if not isinstance(one, Current)]
    assert kinds == [Listed, Changed, Gone, Lost, Lost, Changed]
    asked = [request.query.get("resourceVersion") for request in server.seen]
    assert asked == [None, "5", "8", "9", "9"]


async def test_a_version_that_is_forgotten_is_listed_anew(tmp_path: Path) -> None:
    old = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    script = [
        listing(pod("a", 3), version="5"),
        stream(old),
        listing(pod("c", 20), version="20"),
        status(410),
        listing(version="30"),
        stream(then="hang"),
    ]
    async with server_of(tmp_path, *script) as (api, _):
        news = await told(api, 5)
    assert [type(one) for one in news] == [Listed, Lost, Listed, Lost, Listed]
    assert news[2] == Listed([pod("c", 20)], "20")


async def test_a_server_that_is_away_at_first_is_waited_for(tmp_path: Path) -> None:
    async with server_of(tmp_path, cut) as (api, server):
        news = follow(api, PODS, wait_max_s=0.2)
        async with asyncio.timeout(60):
            assert isinstance(await anext(news), Lost)
            server.script[:] = [listing(version="1"), stream(then="hang")]
            while not isinstance(await anext(news), Listed):
                continue
        await news.aclose()  # type: ignore[attr-defined]


def mirror_of(api: Api, wakeups: Wakeups, **more: Any) -> Mirror:
    return Mirror(api, PODS, wakeups, wait_max_s=0.2, keep=lambda item: item, **more)


async def test_a_mirror_holds_what_there_is_and_wakes_who_waits(tmp_path: Path) -> None:
    turn = asyncio.Event()

    async def later(request: Any) -> Any:
        await turn.wait()
        return await stream(said("MODIFIED", "a", 6), said("DELETED", "b", 7), then="hang")(request)

    async with server_of(tmp_path, listing(pod("a", 3), pod("b", 4), version="5"), later) as (api, _):
        wakeups = Wakeups()
        mirror = mirror_of(api, wakeups)
        assert not mirror.is_current
        mirror.start()
        mirror.start()
        assert await mirror.listed(20)
        assert mirror.is_current
        assert {item["metadata"]["name"] for item in mirror.all()} == {"a", "b"}
        with wakeups.heard(["a"]) as woken, wakeups.heard(["x"]) as other:
            turn.set()
            async with asyncio.timeout(20):
                await woken.wait()
                while mirror.get("b"):
                    await asyncio.sleep(0.01)
            assert not other.is_set()
        assert mirror.get("a") == pod("a", 6)
        mirror.close()
        assert (mirror.all(), mirror.is_current) == ([], False)


async def test_who_wrote_does_not_read_what_was_there_before(tmp_path: Path) -> None:
    turn = asyncio.Event()

    async def slow(request: Any) -> Any:
        answer = listing(pod("a", 3), pod("gone", 3), version="5")
        await turn.wait()
        return await answer(request)

    async with server_of(tmp_path, slow, stream(said("MODIFIED", "a", 4), then="hang")) as (api, _):
        mirror = mirror_of(api, Wakeups())
        mirror.start()
        mirror.learn(pod("a", 8))
        mirror.learn(pod("new", 9))
        turn.set()
        assert await mirror.listed(20)
        await asyncio.sleep(0.05)
        assert mirror.get("a") == pod("a", 8)
        assert mirror.get("new") == pod("new", 9)
        mirror.learn(pod("a", 2, uid="a younger one of that name"))
        assert mirror.get("a") == pod("a", 2, uid="a younger one of that name")
        mirror.forget(pod("a", 9, uid="a"))
        assert mirror.get("a"), "it was another one"
        mirror.close()


async def test_a_mirror_begins_anew_after_it_was_closed(tmp_path: Path) -> None:
    async with server_of(tmp_path, listing(pod("a", 3), version="5"), stream(then="hang")) as (api, server):
        mirror = mirror_of(api, Wakeups())
        mirror.start()
        assert await mirror.listed(20)
        mirror.close()
        server.script[:] = [listing(pod("b", 6), version="7"), stream(then="hang")]
        mirror.start()
        assert await mirror.listed(20)
        assert [item["metadata"]["name"] for item in mirror.all()] == ["b"]
        mirror.close()


async def test_of_too_many_the_newest_are_kept(tmp_path: Path) -> None:
    items = [pod(str(number), number) for number in range(10)]
    async with server_of(tmp_path, listing(*items, version="10"), stream(then="hang")) as (api, _):
        mirror = mirror_of(api, Wakeups(), most=3, about=lambda item: "all")
        mirror.start()
        assert await mirror.listed(20)
        assert mirror.all() == items[7:]
        assert {item["metadata"]["name"] for item in mirror.about("all")} == {"7", "8", "9"}
        assert mirror.about("none") == []
        mirror.close()
