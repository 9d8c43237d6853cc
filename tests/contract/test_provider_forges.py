"""GitHub and GitLab by the shapes of their documented answers (tests/fixtures), over real HTTP."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.errors.login import OnboardingError, ProviderMisconfigured, ProviderUnavailable
from proxy.http.secret import Secret
from proxy.identity.keys import parse_public_key
from proxy.onboarding.providers.base import ApprovalFacts, Tools
from proxy.onboarding.providers.github import GitHub, api_of
from proxy.onboarding.providers.gitlab import GitLab
from proxy.settings.onboarding import GitHubSettings, GitLabSettings, KeyListSettings
from tests.fakes.provider import HANG_UP, Leaping, Say, Scripted, fixture, said, tools

HUB, LAB = fixture("github"), fixture("gitlab")
ABOUT = ApprovalFacts("alice", "192.0.2.1", "SHA256:x")
TOKEN = Secret("gho_hush")


def blobs(entries: list[dict[str, Any]], *numbers: int) -> set[bytes]:
    return {parse_public_key(entry["key"]).blob for entry in entries if entry["id"] in numbers}


class World:
    def __init__(self, server: Scripted) -> None:
        self.server = server
        self.time = Leaping()
        self.tools: Tools = tools(self.time.clock, KeyListSettings(max_pages=3))

    def github(self, secret: Secret | None = None, **settings: Any) -> GitHub:
        chosen = GitHubSettings(kind="github", url=self.server.url, client_id="app", **settings)
        return GitHub(chosen, secret, self.tools)

    def gitlab(self, **settings: Any) -> GitLab:
        chosen = GitLabSettings(kind="gitlab", url=self.server.url, client_id="app", **settings)
        return GitLab(chosen, Secret("s"), self.tools)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Scripted() as server:
        made = World(server)
        yield made
        await made.tools.http.close()  # type: ignore[attr-defined]


def serve_github(server: Scripted) -> None:
    server.on("/login/device/code", said(HUB["device"]))
    server.on("/login/oauth/access_token", said(HUB["pending"]), said(HUB["slow_down"]), said(HUB["token"]))
    server.on("/api/v3/user", said(HUB["user"]))
    server.on("/api/v3/user/emails", said(HUB["emails"]))
    server.on("/api/v3/user/orgs", said(HUB["organizations"]))
    server.on("/api/v3/user/teams", said(HUB["teams"]))
    server.on("/api/v3/user/583231", said(HUB["user_by_id"]))
    server.on("/api/v3/users/Alice-Liddell/keys", said(HUB["keys"], ETag='"one"'))


def serve_gitlab(server: Scripted) -> None:
    server.on("/oauth/authorize_device", said(LAB["device"]))
    server.on("/oauth/token", said(LAB["pending"]), said(LAB["token"]))
    server.on("/api/v4/user", said(LAB["user"]))
    server.on("/oauth/userinfo", said(LAB["userinfo"]))
    server.on("/api/v4/users/42/keys", said(LAB["keys"]))


# ------------------------------------------------------------------------------------------ GitHub


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("https://github.com", "https://api.github.com"),
        ("https://corp.ghe.com", "https://api.corp.ghe.com"),
        ("https://git.corp.example", "https://git.corp.example/api/v3"),
    ],
)
def test_where_the_api_is(url: str, api: str) -> None:
    assert api_of(url) == api


async def test_github_from_code_to_keys(world: World) -> None:
    serve_github(world.server)
    provider = world.github()
    code = await provider.start_device(ABOUT, 900)
    assert code.user_code == "WDJB-MJHT"
    tokens = await provider.poll_device(code)
    assert world.time.waits == [6.0, 6.0, 12.0]
    profile = await provider.profile(tokens)
    assert (profile.subject, profile.login, profile.name) == ("583231", "Alice-Liddell", "alice-liddell")
    assert (profile.full_name, profile.email) == ("Alice Liddell", "alice@wonder.example")
    assert profile.groups == ("Wonderland",)
    assert profile.active
    listed = await provider.keys(profile.subject, profile.login, tokens.access)
    assert listed is not None
    assert listed.blobs == blobs(HUB["keys"]["body"], 1, 2), "the weak key is left out"
    form = world.server.asked[0][2]
    assert form == {"client_id": "app", "scope": "read:user user:email read:org"}
    headers = world.server.asked[-1][3]
    assert headers["Authorization"].startswith("Bearer gho_")
    assert headers["X-GitHub-Api-Version"]


async def test_github_teams_and_no_groups(world: World) -> None:
    serve_github(world.server)
    from proxy.onboarding.device_flow import Tokens

    teams = await world.github(groups="teams").profile(Tokens(TOKEN))
    assert teams.groups == ("Wonderland", "Wonderland/tea-party")
    none = world.github(groups="none")
    assert (await none.profile(Tokens(TOKEN))).groups == ()
    await none.start_device(ABOUT, 900)
    assert world.server.asked[-1][2]["scope"] == "read:user user:email"


async def test_github_account_without_a_verified_primary_address(world: World) -> None:
    serve_github(world.server)
    from proxy.onboarding.device_flow import Tokens

    unverified = [{"email": "a@corp.example", "primary": True, "verified": False, "visibility": None}]
    for answer in (Say(unverified), Say({"message": "Not Found"}, 404), Say([])):
        world.server.on("/api/v3/user/emails", answer)
        assert (await world.github().profile(Tokens(TOKEN))).email == ""


async def test_github_suspended(world: World) -> None:
    serve_github(world.server)
    from proxy.onboarding.device_flow import Tokens

    world.server.on("/api/v3/user", Say({**HUB["user"]["body"], "suspended_at": "2026-01-01T00:00:00Z"}))
    assert not (await world.github().profile(Tokens(TOKEN))).active


async def test_keys_of_a_known_account_are_those_of_its_number(world: World) -> None:
    """The name was given up and taken by somebody else: her keys are asked by her number."""
    serve_github(world.server)
    world.server.on("/api/v3/user/583231", Say({**HUB["user_by_id"]["body"], "login": "alice-renamed"}))
    world.server.on("/api/v3/users/alice-renamed/keys", Say([HUB["keys"]["body"][0]]))
    provider = world.github(Secret("app-secret"))
    listed = await provider.keys("583231", "Alice-Liddell")
    assert listed is not None
    assert listed.blobs == blobs(HUB["keys"]["body"], 1)
    basic = "Basic " + base64.b64encode(b"app:app-secret").decode()
    assert all(headers["Authorization"] == basic for *_, headers in world.server.asked)


async def test_an_account_that_is_gone_has_no_keys(world: World) -> None:
    provider = world.github()
    listed = await provider.keys("583231", "Alice-Liddell")
    assert listed is not None
    assert listed.blobs == frozenset()


async def test_a_number_that_answers_for_another_is_refused(world: World) -> None:
    world.server.on("/api/v3/user/583231", Say({"login": "mallory", "id": 1}))
    with pytest.raises(ProviderMisconfigured):
        await world.github().keys("583231", "Alice-Liddell")


# ---------------------------------------------------------------------------------------- key lists


async def test_pages_and_etags(world: World) -> None:
    serve_github(world.server)
    server, first = world.server, "/api/v3/users/Alice-Liddell/keys?per_page=100"
    del server.script["/api/v3/users/Alice-Liddell/keys"]
    link = f'<{server.url}{first}&page=2>; rel="next", <{server.url}{first}&page=2>; rel="last"'
    server.on(first, said(HUB["keys"], ETag='"one"', Link=link), Say(b"", 304))
    server.on(f"{first}&page=2", said(HUB["keys_page_2"], ETag='"two"'), Say(b"", 304))
    provider = world.github()
    every = blobs(HUB["keys"]["body"], 1, 2) | blobs(HUB["keys_page_2"]["body"], 4)
    listed = await provider.keys("583231", "Alice-Liddell", TOKEN)
    assert listed is not None
    assert listed.blobs == every
    asked = len(server.asked)
    assert (await provider.keys("583231", "Alice-Liddell")).blobs == every  # type: ignore[union-attr]
    assert len(server.asked) == asked, "a young list is used without asking"
    world.time.time += 301
    fresh = await provider.keys("583231", "Alice-Liddell")
    assert fresh is not None
    assert (fresh.blobs, fresh.stale) == (every, False)
    etags = [headers.get("If-None-Match") for _, path, _, headers in server.asked if "/keys" in path]
    assert etags == [None, None, '"one"', '"two"']


async def test_an_outage_locks_nobody_out_for_as_long_as_settings_say(world: World) -> None:
    serve_github(world.server)
    provider, server = world.github(), world.server
    await provider.keys("583231", "Alice-Liddell", TOKEN)
    server.on("/api/v3/user/583231", HANG_UP)
    world.time.time += 3_600
    stale = await provider.keys("583231", "Alice-Liddell")
    assert stale is not None
    assert stale.stale
    assert stale.blobs == blobs(HUB["keys"]["body"], 1, 2)
    assert stale.age_s >= 3_600
    asked = len(server.asked)
    await provider.keys("583231", "Alice-Liddell")
    assert len(server.asked) == asked, "a provider that is down is left alone for a while"
    world.time.time += 7 * 86_400
    with pytest.raises(ProviderUnavailable):
        await provider.keys("583231", "Alice-Liddell")
    serve_github(server)
    world.time.time += 60
    again = await provider.keys("583231", "Alice-Liddell")
    assert again is not None
    assert not again.stale


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Say({"message": "rate limited"}, 403, {"X-RateLimit-Remaining": "0"}), ProviderUnavailable),
        (Say({"message": "rate limited"}, 429), ProviderUnavailable),
        (Say(b"", 500), ProviderUnavailable),
        (Say(b"<html>", 200), ProviderUnavailable),
        (Say({"not": "a list"}), ProviderMisconfigured),
        (Say({"message": "Bad credentials"}, 401), ProviderMisconfigured),
        (Say([], 200, {"Link": '<https://evil.example/keys>; rel="next"'}), ProviderMisconfigured),
        (Say(b"", 302, {"Location": "https://evil.example/"}), ProviderMisconfigured),
    ],
)
async def test_a_list_that_cannot_be_read_is_an_error_not_an_empty_list(
    world: World, answer: Say, kind: type[OnboardingError]
) -> None:
    world.server.on("/api/v3/users/Alice-Liddell/keys", answer)
    with pytest.raises(kind):
        await world.github().keys("583231", "Alice-Liddell", TOKEN)


async def test_a_list_without_end_ends(world: World) -> None:
    serve_github(world.server)
    path = "/api/v3/users/Alice-Liddell/keys"

    async def page(request: Any) -> Any:
        from aiohttp import web

        number = int(request.query.get("page", "1"))
        link = f'<{world.server.url}{path}?per_page=100&page={number + 1}>; rel="next"'
        return web.json_response(HUB["keys"]["body"], headers={"Link": link})

    world.server.on(path, page)
    listed = await world.github().keys("583231", "Alice-Liddell", TOKEN)
    assert listed is not None
    assert world.server.count(path) == 3


async def test_five_hundred_at_once_ask_once(world: World) -> None:
    import asyncio

    serve_github(world.server)
    provider = world.github()
    results = await asyncio.gather(*(provider.keys("583231", "x") for _ in range(500)))
    assert len({result.blobs for result in results if result}) == 1
    assert world.server.count("/api/v3/users/Alice-Liddell/keys") == 1


async def test_lists_in_memory_are_bounded(world: World) -> None:
    world.tools = tools(world.time.clock, KeyListSettings(max_accounts=10))
    provider = world.github()
    for number in range(30):
        await provider.keys(str(number), "x")
    assert len(provider._lists._entries) == 10
    await world.tools.http.close()  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------ GitLab


async def test_gitlab_from_code_to_keys(world: World) -> None:
    serve_gitlab(world.server)
    provider = world.gitlab()
    code = await provider.start_device(ABOUT, 900)
    assert code.verification_uri_complete.endswith("user_code=0A44L90H")
    assert code.expires_at == world.time.time + 300
    tokens = await provider.poll_device(code)
    profile = await provider.profile(tokens)
    assert (profile.subject, profile.name, profile.email) == ("42", "alice", "alice@wonder.example")
    assert profile.groups == ("wonderland", "wonderland/tea-party")
    listed = await provider.keys(profile.subject, profile.login, tokens.access)
    assert listed is not None
    assert listed.blobs == blobs(LAB["keys"]["body"], 1, 2), (
        "signing-only, expired and weak keys are left out"
    )
    assert world.server.asked[0][2] == {
        "client_id": "app",
        "client_secret": "s",
        "scope": "openid profile email read_user",
    }


@pytest.mark.parametrize(
    ("change", "active", "email"),
    [
        ({"state": "blocked"}, False, "alice@wonder.example"),
        ({"state": "deactivated"}, False, "alice@wonder.example"),
        ({"locked": True}, False, "alice@wonder.example"),
        ({"confirmed_at": None}, True, ""),
    ],
)
async def test_gitlab_accounts(world: World, change: dict[str, Any], active: bool, email: str) -> None:
    serve_gitlab(world.server)
    from proxy.onboarding.device_flow import Tokens

    world.server.on("/api/v4/user", Say({**LAB["user"]["body"], **change}))
    profile = await world.gitlab().profile(Tokens(TOKEN))
    assert (profile.active, profile.email) == (active, email)


async def test_gitlab_userinfo_of_another_account_is_refused(world: World) -> None:
    serve_gitlab(world.server)
    from proxy.onboarding.device_flow import Tokens

    world.server.on("/oauth/userinfo", Say({**LAB["userinfo"]["body"], "sub": "43"}))
    with pytest.raises(ProviderMisconfigured):
        await world.gitlab().profile(Tokens(TOKEN))


async def test_gitlab_keys_whose_expiry_cannot_be_read_do_not_count(world: World) -> None:
    entry = LAB["keys"]["body"][0]
    world.server.on(
        "/api/v4/users/42/keys",
        Say([{**entry, "expires_at": "someday"}, {**entry, "usage_type": "new-kind"}, "junk", {"id": 9}]),
    )
    listed = await world.gitlab().keys("42", "alice")
    assert listed is not None
    assert listed.blobs == frozenset()


async def test_gitlab_key_that_expires_later_counts(world: World) -> None:
    entry = {**LAB["keys"]["body"][0], "expires_at": "2999-05-05T00:00:00.000Z"}
    world.server.on("/api/v4/users/42/keys", Say([entry]))
    listed = await world.gitlab().keys("42", "alice")
    assert listed is not None
    assert len(listed.blobs) == 1
