"""The door to the API, before a server that answers from a script."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import SettingsError
from proxy.errors.workspaces import (
    ClusterConflict,
    ClusterError,
    ClusterForbidden,
    ClusterNotFound,
    ClusterRefused,
    ClusterThrottled,
    ClusterUnavailable,
)
from proxy.settings.kubernetes import KubernetesSettings
from proxy.workspaces.kubernetes.api import MAX_LINE_BYTES, Api, Expired, Query
from proxy.workspaces.kubernetes.objects import CONFIG_MAP, POD
from tests.fakes.apiserver import (
    Answer,
    ApiServer,
    body,
    cut,
    hang,
    kubeconfig,
    listing,
    raw,
    serving,
    status,
    stream,
)

OBJECT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}}
PODS = Query(POD, "n", "a=b", "c=d")
POLICY = 'admission webhook "a.example.com" denied the request: User "eve" cannot get resource "x" here'
COLON = (
    'roles.rbac.authorization.k8s.io "a:b" is forbidden: User "eve" cannot get resource "roles" in API group'
)
PATH = 'forbidden: User "eve" cannot get path "/metrics"'
FORBIDDEN = 'configmaps "a" is forbidden: User "eve" cannot get resource "configmaps" in API group ""'
QUOTA = 'pods "a" is forbidden: exceeded quota: few'

Make = Callable[..., AbstractAsyncContextManager[tuple[Api, ApiServer]]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    @asynccontextmanager
    async def made(*script: Answer, **settings: Any) -> AsyncIterator[tuple[Api, ApiServer]]:
        server = ApiServer(list(script))
        async with serving(server, tmp_path) as kubeconfig:
            given = {"retry_wait_max_s": 0.2, "retry_for_s": 5, "request_timeout_s": 0.5, **settings}
            api = Api(KubernetesSettings(kubeconfig=kubeconfig, **given))
            try:
                yield api, server
            finally:
                await api.close()

    return made


async def test_what_we_ask_for_names_us_and_is_ours(make: Make) -> None:
    async with make(body(OBJECT)) as (api, server):
        assert await api.apply(OBJECT) == OBJECT
        (request,) = server.seen
        assert request.method == "PATCH"
        assert request.path == "/api/v1/namespaces/n/configmaps/a"
        assert dict(request.query) == {"fieldManager": "fairlead", "force": "true"}
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        assert request.headers["Authorization"] == "Bearer token-of-test"
        assert json.loads(await request.read()) == OBJECT


@pytest.mark.parametrize(
    "trouble",
    [cut, hang, status(500), status(503), status(429), raw("<html>busy", 502), raw("<html>hello")],
    ids=["cut", "hang", "500", "503", "429", "html 502", "html 200"],
)
async def test_trouble_that_passes_is_not_noticed(make: Make, trouble: Answer) -> None:
    async with make(trouble, trouble, body(OBJECT)) as (api, server):
        assert await api.get(CONFIG_MAP, "n", "a") == OBJECT
        assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(cut, ClusterUnavailable), (status(500, "boom"), ClusterUnavailable), (status(429), ClusterThrottled)],
    ids=["cut", "500", "429"],
)
async def test_trouble_that_stays_is_told_after_a_while(
    make: Make, trouble: Answer, error: type[ClusterError]
) -> None:
    async with make(body(OBJECT), trouble, retry_for_s=2) as (api, server):
        await api.get(CONFIG_MAP, "n", "a")  # reading certificates takes a while on a busy machine
        with pytest.raises(error, match="GET /api/v1/namespaces/n/configmaps/a"):
            await api.get(CONFIG_MAP, "n", "a")
        assert len(server.seen) > 2


async def test_a_server_that_wants_to_be_left_alone_is(make: Make) -> None:
    busy = status(429, headers={"Retry-After": "60"})
    async with make(busy, body(OBJECT)) as (api, server):
        with pytest.raises(ClusterThrottled):
            await api.get(CONFIG_MAP, "n", "a")
        assert len(server.seen) == 1, "a minute is longer than we keep asking"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (status(403, FORBIDDEN), ClusterForbidden, 'cannot get resource "configmaps"'),
        (status(403, QUOTA), ClusterRefused, "exceeded quota"),
        (status(403, POLICY), ClusterRefused, "cannot get resource"),
        (status(403, COLON), ClusterForbidden, "cannot get resource"),
        (status(403, PATH), ClusterForbidden, "cannot get path"),
        (status(404), ClusterNotFound, "GET"),
        (status(409), ClusterConflict, "not today"),
        (status(410), Expired, "not today"),
        (status(422, "spec.x: Invalid value"), ClusterRefused, "spec.x"),
        (status(400), ClusterRefused, "not today"),
        (raw("<html>", 418), ClusterError, "HTTP 418"),
    ],
)
async def test_a_refusal_is_named_and_not_asked_again(
    make: Make, answer: Answer, error: type[ClusterError], words: str
) -> None:
    async with make(answer) as (api, server):
        with pytest.raises(error, match=words) as caught:
            await api.get(CONFIG_MAP, "n", "a")
        assert type(caught.value) is error
        assert len(server.seen) == 1
        assert words not in caught.value.user_message, "what Kubernetes said is for the operator"


async def test_what_is_not_there_is_none_and_deleting_it_is_fine(make: Make) -> None:
    async with make(status(404)) as (api, _):
        assert await api.find(CONFIG_MAP, "n", "a") is None
        await api.delete(CONFIG_MAP, "n", "a")
    async with make(status(409)) as (api, _):
        await api.delete(CONFIG_MAP, "n", "a", uid="older")
        with pytest.raises(ClusterConflict):
            await api.delete(CONFIG_MAP, "n", "a")


async def test_a_list_is_read_page_by_page(make: Make) -> None:
    items = [{"metadata": {"name": name}} for name in "abc"]
    pages = [listing(*items[:2], version="7", more="next"), listing(items[2], version="7")]
    async with make(*pages, page_size=2) as (api, server):
        found = await api.list(PODS)
        assert (list(found.items), found.version) == (items, "7")
        first, second = (dict(request.query) for request in server.seen)
        assert first == {"labelSelector": "a=b", "fieldSelector": "c=d", "limit": "2"}
        assert second == first | {"continue": "next"}


async def test_a_list_that_expires_between_pages_is_read_at_once(make: Make) -> None:
    items = [{"metadata": {"name": name}} for name in "ab"]
    script = [listing(items[0], more="next"), status(410, reason="Expired"), listing(*items, version="9")]
    async with make(*script) as (api, server):
        assert list((await api.list(PODS)).items) == items
        assert "limit" not in server.seen[-1].query


async def test_a_watch_gives_what_happens_however_it_is_cut_into_pieces(make: Make) -> None:
    added = {"type": "ADDED", "object": {"metadata": {"name": "ä" * 3_000}}}
    text = json.dumps(added) + "\n"
    async with make(stream(text[:10], text[10:] + text, text.rstrip(), pause_s=0.01)) as (api, server):
        assert [said async for said in api.watch(PODS, "5")] == [added] * 3
        query = server.seen[0].query
        assert (query["resourceVersion"], query["allowWatchBookmarks"]) == ("5", "true")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(410), Expired),
        (stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}), Expired),
        (stream({"type": "ERROR", "object": {"kind": "Status", "code": 500}}), ClusterUnavailable),
        (stream("not JSON\n"), ClusterUnavailable),
        (stream("[]\n"), ClusterUnavailable),
        (stream(then="cut"), ClusterUnavailable),
        (stream("x" * 70_000, then="hang"), ClusterUnavailable),
        (hang, ClusterUnavailable),
    ],
    ids=["410", "410 later", "500 later", "text", "list", "cut", "half a line", "silence"],
)
async def test_a_watch_that_breaks_says_so(make: Make, answer: Answer, error: type[ClusterError]) -> None:
    async with make(answer, watch_timeout_s=1, request_timeout_s=0.1) as (api, _):
        with pytest.raises(error):
            async for _ in api.watch(PODS, "5"):
                pass


async def test_a_line_without_end_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.workspaces.kubernetes.api.MAX_LINE_BYTES", 1_000)
    assert MAX_LINE_BYTES > 1_500_000, "an object of etcd fits"
    async with make(stream("x" * 2_000, then="hang")) as (api, _):
        with pytest.raises(ClusterUnavailable, match="a line of more than 1000 bytes"):
            async for _ in api.watch(PODS, "5"):
                pass


async def test_credentials_that_expired_are_read_again(tmp_path: Path) -> None:
    server = ApiServer([status(401), body(OBJECT)])
    async with serving(server, tmp_path) as file:
        api = Api(KubernetesSettings(kubeconfig=file))
        server.script.insert(0, body(OBJECT))
        await api.get(CONFIG_MAP, "n", "a")
        address = json.loads(file.read_text())["clusters"][0]["cluster"]["server"]
        file.write_text(json.dumps(kubeconfig(address, ["later"])))
        await api.get(CONFIG_MAP, "n", "a")
        await api.close()
    tokens = [request.headers["Authorization"].removeprefix("Bearer token-of-") for request in server.seen]
    assert tokens == ["test", "test", "later"]


async def test_a_context_can_be_chosen_and_none_is_a_sentence(tmp_path: Path) -> None:
    server = ApiServer([body(OBJECT)])
    async with serving(server, tmp_path) as file:
        address = json.loads(file.read_text())["clusters"][0]["cluster"]["server"]
        file.write_text(json.dumps(kubeconfig(address, ["one", "two"])))
        api = Api(KubernetesSettings(kubeconfig=file, context="two"))
        await api.get(CONFIG_MAP, "n", "a")
        await api.close()
        assert server.seen[0].headers["Authorization"] == "Bearer token-of-two"
        with pytest.raises(SettingsError, match="no cluster can be found"):
            await Api(KubernetesSettings(kubeconfig=file, context="none")).get(CONFIG_MAP, "n", "a")
    with pytest.raises(SettingsError, match="no cluster can be found"):
        await Api(KubernetesSettings(kubeconfig=tmp_path / "none")).get(CONFIG_MAP, "n", "a")
