"""Accounts of known users, read again: what is renewed, what ends, what an outage costs; on each store."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import structlog.testing

from proxy.errors.login import NameTaken
from proxy.http.secret import Secret
from proxy.identity.directory import Directory
from proxy.identity.grants import Claim, SqlGrants, Unclaimed
from proxy.identity.profile import Profile
from proxy.identity.schema import grants as grants_table
from proxy.identity.schema import users
from proxy.identity.store import SqlDirectory
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.providers.base import Provider
from proxy.onboarding.providers.github import GitHub
from proxy.onboarding.providers.gitlab import GitLab
from proxy.onboarding.providers.oidc import Oidc
from proxy.onboarding.refresher import AccountStanding, Refresher
from proxy.onboarding.vault import Vault
from proxy.settings.groups import GroupSettings
from proxy.settings.onboarding import GitHubSettings, GitLabSettings, OidcSettings
from proxy.storage.database import Database
from tests.contract.directories import DEADLINE_S, make_key
from tests.fakes.provider import CUT, HANG, HANG_UP, Leaping, Say, Scripted, fixture, said, tools

SETTINGS = GroupSettings(max_age_s=1_000, grace_s=500, refresh_s=100)
HUB, LAB = fixture("github"), fixture("gitlab")
FIRST, SECOND, THIRD = (f"refresh-{word}-that-nobody-may-see" for word in ("one", "two", "three"))
INVALID = Say({"error": "invalid_grant"}, 400)
KEY = make_key()


def tokens(refresh: str | None, **more: Any) -> Say:
    answer = {"access_token": "at", "token_type": "Bearer", "refresh_token": refresh, **more}
    return Say({name: value for name, value in answer.items() if value is not None})


@dataclass
class Store:
    """The database as one proxy has it."""

    database: Database
    directory: SqlDirectory
    grants: SqlGrants


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[list[Store]]:
    """Two proxies on one database."""
    made = []
    for _ in range(2):
        database = await Database.open(database_url, query_timeout_s=DEADLINE_S)
        directory = await SqlDirectory.in_database(database, uids=range(10_000, 60_000), groups=SETTINGS)
        made.append(Store(database, directory, SqlGrants(database)))
    yield made
    for store in made:
        await store.database.close()


class World:
    """A provider by script, and two proxies that know `alice` from it."""

    def __init__(self, server: Scripted, stores: list[Store]) -> None:
        self.server = server
        self.stores = stores
        self.time = Leaping()
        self.vault = Vault([b"k" * 32])
        self.tools = tools(self.time.clock, request_timeout_s=20)
        self.provider: Provider = self.oidc()
        self._refreshers: list[Refresher] = []

    def oidc(self, **settings: Any) -> Oidc:
        url = self.server.url
        document = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/jwks",
            "userinfo_endpoint": f"{url}/userinfo",
        }
        self.server.on("/.well-known/openid-configuration", Say(document))
        self.say_groups("staff", "ops")
        chosen = {"kind": "oidc", "name": "idp", "issuer": url, "client_id": "me", **settings}
        return Oidc(OidcSettings.model_validate(chosen), None, self.tools)

    def say_groups(self, *groups: str, **more: Any) -> None:
        self.server.on(
            "/userinfo", Say({"sub": "s1", "preferred_username": "alice", "groups": groups, **more})
        )

    @property
    def directory(self) -> SqlDirectory:
        return self.stores[0].directory

    def refresher(self, number: int = 0, settings: GroupSettings = SETTINGS, **more: Any) -> Refresher:
        store = self.stores[number]
        made = Refresher(store.directory, store.grants, more.pop("vault", self.vault), settings, **more)
        made._providers = {self.provider.name: self.provider}
        made._issuers = {self.provider.name: self.issuer}
        made._connected = lambda: ["alice"]
        self._refreshers.append(made)
        return made

    @property
    def issuer(self) -> str:
        return self.server.url

    async def onboard(self, refresh: str | None = FIRST, subject: str = "s1", **more: Any) -> None:
        given = Tokens(Secret("at"), refresh=None if refresh is None else Secret(refresh), **more)
        profile = Profile(self.provider.name, self.issuer, subject, "alice", "alice", groups=("staff", "ops"))
        await self.directory.register(profile, "alice", KEY, self.provider.name)
        await self.refresher().keep("alice", profile, given)

    async def grow_old(self, seconds: float, **moments: float) -> None:
        """Let so much time pass since the groups were read."""
        now = datetime.now(UTC)
        values = {"groups_at": seconds, **moments}
        change = sa.update(users).values(
            {name: now - timedelta(seconds=value) for name, value in values.items()}
        )
        async with self.stores[0].database.writing() as connection:
            await connection.execute(change)

    async def groups(self) -> tuple[str, ...]:
        user = await self.directory.find("alice")
        assert user is not None
        return user.groups

    async def grant(self) -> sa.RowMapping | None:
        async with self.stores[0].database.reading() as connection:
            return (await connection.execute(sa.select(grants_table))).mappings().first()

    async def has_key(self) -> str:
        """Say what has become of the key that came by the provider: empty while it is good."""
        pair = ("alice", KEY.fingerprint)
        standing = (await self.directory.standing_of([pair]))[pair]
        assert standing.has_key
        return standing.ended_at_provider

    async def close(self) -> None:
        for refresher in self._refreshers:
            await refresher.close()
        await self.tools.http.close()  # type: ignore[attr-defined]


@pytest.fixture
async def world(stores: list[Store]) -> AsyncIterator[World]:
    async with Scripted() as server:
        made = World(server, stores)
        yield made
        await made.close()


# --------------------------------------------------------------------------------------- age of groups


async def test_groups_that_are_too_old_give_nothing_and_are_still_known(world: World) -> None:
    await world.onboard()
    assert await world.groups() == ("staff", "ops")
    await world.grow_old(1_001)
    user = await world.directory.find("alice")
    assert user is not None
    assert (user.groups, user.known_groups) == ((), ("staff", "ops"))
    assert user.restricting_groups == ("staff", "ops")
    pair = ("alice", KEY.fingerprint)
    standing = (await world.directory.standing_of([pair]))[pair]
    assert standing.user == user
    assert standing.has_key


async def test_an_outage_keeps_groups_for_the_grace_and_locks_nobody_out(world: World) -> None:
    await world.onboard()
    await world.grow_old(1_400, provider_failed_at=10)
    assert await world.groups() == ("staff", "ops")
    await world.grow_old(1_600, provider_failed_at=10)
    assert await world.groups() == ()
    assert await world.has_key() == ""


async def test_users_of_an_operator_have_no_age(world: World) -> None:
    await world.directory.add_user("bob")
    refresher = world.refresher()
    assert await refresher.vouch("bob", "static") is AccountStanding.GOOD
    assert await refresher.vouch("nobody", "static") is AccountStanding.GOOD
    assert world.server.asked == []


async def test_a_waiting_list_that_is_decided_late_gives_old_groups(world: World) -> None:
    profile = Profile("idp", world.issuer, "s1", "alice", "alice", groups=("staff",))
    await world.directory.waitlist(profile, "alice", KEY, "192.0.2.1")
    (waiting,) = await world.directory.list_onboardings()
    await world.directory.approve(waiting.id, "operator")
    account = await world.directory.account_of("alice")
    assert account is not None
    assert account.reading is not None
    assert account.reading.read_at == waiting.created_at


# -------------------------------------------------------------------------------------- refresh, OpenID


async def test_a_login_refreshes_groups_that_are_due(world: World) -> None:
    await world.onboard()
    world.server.on("/token", tokens(SECOND))
    world.say_groups("ops")
    await world.grow_old(150)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert await world.groups() == ("ops",)
    form = world.server.asked[-2][2]
    assert (form["grant_type"], form["refresh_token"], form["client_id"]) == ("refresh_token", FIRST, "me")


async def test_young_groups_cost_a_login_nothing(world: World) -> None:
    await world.onboard()
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert world.server.count("/token") == 0


async def test_groups_that_had_ended_come_back_with_the_refresh_of_a_login(world: World) -> None:
    await world.onboard()
    world.server.on("/token", tokens(SECOND))
    await world.grow_old(5_000)
    assert await world.groups() == ()
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert await world.groups() == ("staff", "ops")


async def test_a_connected_user_is_refreshed_without_a_login(world: World) -> None:
    await world.onboard()
    world.server.on("/token", tokens(None))
    world.say_groups()
    await world.grow_old(150)
    await world.refresher().round()
    assert await world.groups() == ()


async def test_a_rotated_grant_is_the_one_that_is_used_next(world: World) -> None:
    await world.onboard()
    world.server.on("/token", tokens(SECOND), tokens(None), tokens(THIRD))
    for _ in range(3):
        await world.grow_old(150)
        await world.refresher().vouch("alice", "idp")
    assert [asked[2]["refresh_token"] for asked in world.server.asked if asked[1] == "/token"] == [
        FIRST,
        SECOND,
        SECOND,
    ]


async def test_two_replicas_never_use_one_grant_at_the_same_time(world: World) -> None:
    """A provider that rotates takes a second use for theft; whoever is second waits for the first."""
    await world.onboard()
    await world.grow_old(5_000)
    used: list[str] = []

    async def once(request: Any) -> Any:
        token = str((await request.post())["refresh_token"])
        used.append(token)
        await asyncio.sleep(0.2)
        from aiohttp import web

        if used.count(token) > 1:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": "at", "token_type": "Bearer", "refresh_token": SECOND})

    world.server.on("/token", once)
    vouched = await asyncio.gather(
        *(world.refresher(number % 2).vouch("alice", "idp") for number in range(6))
    )
    assert set(vouched) == {AccountStanding.GOOD}
    assert used == [FIRST]
    assert await world.groups() == ("staff", "ops")


async def test_a_provider_that_refuses_the_grant_ends_the_account_and_its_key(world: World) -> None:
    await world.onboard()
    await world.directory.add_key("alice", static := make_key())
    world.server.on("/token", INVALID)
    await world.grow_old(150)
    refresher = world.refresher()
    assert await refresher.vouch("alice", "idp") is AccountStanding.ENDED
    assert await refresher.vouch("alice", "static") is AccountStanding.GOOD
    assert await world.groups() == ()
    assert await world.has_key() == "idp"
    pair = ("alice", static.fingerprint)
    assert (await world.directory.standing_of([pair]))[pair].ended_at_provider == ""
    assert await world.grant() is None


async def test_an_approval_brings_an_ended_account_back(world: World) -> None:
    await world.onboard()
    await world.directory.account_ended("alice")
    assert await world.has_key() == "idp"
    profile = Profile("idp", world.issuer, "s1", "alice", "alice", groups=("new",))
    await world.directory.renew(profile, "alice")
    assert (await world.has_key(), await world.groups()) == ("", ("new",))


async def test_an_approval_meanwhile_says_more_than_the_refusal_of_an_old_grant(world: World) -> None:
    await world.onboard()
    await world.grow_old(5_000)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def refuse_late(request: Any) -> Any:
        from aiohttp import web

        asked.set()
        await go_on.wait()
        return web.json_response({"error": "invalid_grant"}, status=400)

    world.server.on("/token", refuse_late)
    vouching = asyncio.ensure_future(world.refresher(1).vouch("alice", "idp"))
    await asked.wait()
    profile = Profile("idp", world.issuer, "s1", "alice", "alice", groups=("new",))
    await world.directory.renew(profile, "alice")
    await world.refresher().keep("alice", profile, Tokens(Secret("at"), refresh=Secret(SECOND)))
    go_on.set()
    assert await vouching is AccountStanding.GOOD
    assert (await world.groups(), await world.has_key()) == (("new",), "")
    assert await world.grant() is not None


async def test_an_approval_by_another_account_renews_nothing(world: World) -> None:
    await world.onboard()
    other = Profile("idp", world.issuer, "s2", "alice", "alice", groups=("root",))
    with pytest.raises(NameTaken):
        await world.directory.renew(other, "alice")
    await world.directory.add_user("bob")
    with pytest.raises(NameTaken):
        await world.directory.renew(other, "bob")
    assert await world.groups() == ("staff", "ops")


OUTAGES = [HANG_UP, CUT, Say(b"", 503), Say({"error": "temporarily_unavailable"}, 503), Say(b"<html>", 200)]


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_is_noted_and_ends_nothing(world: World, outage: Say) -> None:
    await world.onboard()
    world.server.on("/token", outage)
    await world.grow_old(1_200)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert (await world.groups(), await world.has_key()) == (("staff", "ops"), "")
    await world.grow_old(1_600)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert (await world.groups(), await world.has_key()) == ((), "")
    world.server.on("/token", tokens(SECOND))
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert await world.groups() == ("staff", "ops")


async def test_a_client_that_is_refused_is_no_end_of_an_account(world: World) -> None:
    """The operator's mistake: a secret that has expired, a scope that is not allowed any more."""
    await world.onboard()
    for error in ("invalid_client", "unauthorized_client", "invalid_scope", "what_is_this"):
        world.server.on("/token", Say({"error": error}, 401))
        await world.grow_old(1_200)
        assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
        assert (await world.groups(), await world.has_key()) == (("staff", "ops"), "")


@pytest.mark.parametrize("lost", [HANG_UP, CUT, Say(b"", 502)])
async def test_a_grant_that_may_be_spent_by_a_lost_answer_ends_no_account(world: World, lost: Say) -> None:
    """The rotated grant was in the answer that was lost: its refusal says nothing of the person."""
    await world.onboard()
    world.server.on("/token", lost, INVALID)
    await world.grow_old(150)
    await world.refresher().vouch("alice", "idp")
    row = await world.grant()
    assert row is not None
    assert row["in_doubt"]
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert (await world.groups(), await world.has_key()) == (("staff", "ops"), "")
    assert await world.grant() is None
    await world.grow_old(1_001)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.ASK


@pytest.mark.parametrize(
    "busy", [Say({"error": "server_error"}, 500), Say({"error": "temporarily_unavailable"})]
)
async def test_a_busy_provider_leaves_no_doubt(world: World, busy: Say) -> None:
    await world.onboard()
    world.server.on("/token", busy, INVALID)
    await world.grow_old(150)
    await world.refresher().vouch("alice", "idp")
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.ENDED


async def test_a_slow_provider_delays_a_login_by_the_wait_that_is_set(world: World) -> None:
    await world.onboard()
    world.server.on("/token", HANG)
    await world.grow_old(150)
    settings = SETTINGS.model_copy(update={"login_wait_s": 0.05})
    assert await world.refresher(settings=settings).vouch("alice", "idp") is AccountStanding.GOOD
    assert await world.groups() == ("staff", "ops")


async def test_a_slow_provider_is_an_outage_once_groups_are_too_old(world: World) -> None:
    await world.onboard()
    world.server.on("/token", HANG)
    await world.grow_old(1_200)
    settings = SETTINGS.model_copy(update={"refresh_timeout_s": 0.2})
    assert await world.refresher(settings=settings).vouch("alice", "idp") is AccountStanding.GOOD
    assert await world.groups() == ("staff", "ops")


async def test_without_a_grant_the_next_login_is_asked_for_an_approval(world: World) -> None:
    await world.onboard(None)
    await world.grow_old(900)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    await world.grow_old(1_001)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.ASK
    assert await world.refresher().vouch("alice", "static") is AccountStanding.ASK, "her groups are at stake"
    silent = SETTINGS.model_copy(update={"ask_at_login": False})
    assert await world.refresher(settings=silent).vouch("alice", "idp") is AccountStanding.GOOD
    assert await world.groups() == ()


async def test_without_a_grant_an_outage_asks_nobody(world: World) -> None:
    await world.onboard(None)
    await world.grow_old(1_001)
    world.server.on("/.well-known/openid-configuration", HANG_UP)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert await world.groups() == ("staff", "ops")


async def test_a_grant_that_has_expired_is_not_used_and_proves_nothing(world: World) -> None:
    await world.onboard(FIRST, refresh_lifetime_s=-1)
    await world.grow_old(150)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert (world.server.count("/token"), await world.has_key(), await world.grant()) == (0, "", None)


async def test_a_grant_of_a_lost_key_is_forgotten(world: World) -> None:
    await world.onboard()
    await world.grow_old(150)
    assert await world.refresher(vault=Vault([b"x" * 32])).vouch("alice", "idp") is AccountStanding.GOOD
    assert (world.server.count("/token"), await world.has_key(), await world.grant()) == (0, "", None)


async def test_without_a_vault_nothing_is_kept(world: World) -> None:
    refresher = world.refresher(vault=None)
    profile = Profile("idp", world.issuer, "s1", "alice", "alice")
    await world.directory.register(profile, "alice", KEY, "idp")
    await refresher.keep("alice", profile, Tokens(Secret("at"), refresh=Secret(FIRST)))
    assert await world.grant() is None
    assert not refresher.keeps_grants


async def test_a_refresh_that_gives_another_account_changes_nothing(world: World) -> None:
    await world.onboard()
    world.server.on("/token", tokens(SECOND))
    world.server.on("/userinfo", Say({"sub": "s2", "preferred_username": "alice", "groups": ["root"]}))
    await world.grow_old(150)
    assert await world.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert (await world.groups(), await world.has_key()) == (("staff", "ops"), "")


async def test_a_provider_that_was_configured_anew_is_not_asked_about_others(world: World) -> None:
    await world.onboard()
    await world.grow_old(5_000)
    refresher = world.refresher()
    refresher._issuers = {"idp": "https://other.example"}
    assert await refresher.vouch("alice", "idp") is AccountStanding.GOOD
    assert (world.server.asked, await world.groups()) == ([], ())


async def test_keys_of_a_claim_go_when_the_claim_does_not_hold_them_any_more(world: World) -> None:
    world.provider = world.oidc(mapping={"keys": "claims.ssh_keys"})
    await world.onboard()
    async with world.stores[0].database.writing() as connection:
        await connection.execute(sa.text("UPDATE keys SET created_at = '2026-01-01 00:00:00.000000'"))
    world.server.on("/token", tokens(SECOND))
    world.say_groups("staff", ssh_keys=[])
    await world.grow_old(150)
    await world.refresher().vouch("alice", "idp")
    assert await world.directory.key_of("alice", KEY.blob) is None


async def test_nothing_of_a_grant_is_logged_or_stored_in_clear(world: World) -> None:
    with structlog.testing.capture_logs() as lines:
        await world.onboard()
        world.server.on("/token", tokens(SECOND), HANG_UP, INVALID)
        for _ in range(3):
            await world.grow_old(150)
            await world.refresher().vouch("alice", "idp")
            row = await world.grant()
            assert row is None or not any(word.encode() in row["sealed"] for word in (FIRST, SECOND))
    assert lines
    assert not any(word in repr(lines) for word in (FIRST, SECOND))


# -------------------------------------------------------------------------------------------- leases


async def test_a_claim_is_for_one_and_ends_by_itself(stores: list[Store], directory: Directory) -> None:
    one, two = (store.grants for store in stores)
    profile = Profile("idp", "i", "s", "alice", "alice")
    assert await one.claim("alice", 60) is Unclaimed.NONE
    await one.keep("alice", b"sealed", None)
    assert await one.claim("alice", 60) is Unclaimed.NONE, "there is no such user"
    await directory.register(profile, "alice", KEY, "idp")
    await one.keep("alice", b"sealed", None)
    claim = await one.claim("alice", 60)
    assert isinstance(claim, Claim)
    assert (claim.sealed, claim.in_doubt) == (b"sealed", False)
    assert await two.claim("alice", 60) is Unclaimed.IN_USE
    await one.replace(claim, b"rotated", None)
    assert await two.claim("alice", 60) is Unclaimed.IN_USE
    await one.release(claim, in_doubt=False)
    again = await two.claim("alice", -1)
    assert isinstance(again, Claim)
    assert (again.sealed, again.in_doubt) == (b"rotated", False)
    last = await one.claim("alice", 60)
    assert isinstance(last, Claim)
    assert last.in_doubt, "the replica that had it went without a word"
    assert not await two.drop(again)
    await two.replace(again, b"late", None)
    await one.release(last, in_doubt=True)
    kept = await one.claim("alice", 60)
    assert isinstance(kept, Claim)
    assert (kept.sealed, kept.in_doubt) == (b"rotated", True)
    await one.drop(kept)
    assert await one.claim("alice", 60) is Unclaimed.NONE


async def test_claims_of_many_at_once_give_one(stores: list[Store], directory: Directory) -> None:
    await directory.register(Profile("idp", "i", "s", "alice", "alice"), "alice", KEY, "idp")
    await stores[0].grants.keep("alice", b"sealed", None)
    claims = await asyncio.gather(*(stores[n % 2].grants.claim("alice", 60) for n in range(10)))
    assert sum(isinstance(claim, Claim) for claim in claims) == 1


async def test_a_removed_user_leaves_no_grant(world: World) -> None:
    await world.onboard()
    assert await world.grant() is not None
    await world.directory.remove_user("alice")
    assert await world.grant() is None


# --------------------------------------------------------------------------------------------- forges


def serve_github(server: Scripted) -> None:
    for path, name in (("", "user"), ("/emails", "emails"), ("/orgs", "organizations")):
        server.on(f"/api/v3/user{path}", said(HUB[name]))
    server.on("/api/v3/user/583231", said(HUB["user_by_id"]))
    server.on("/api/v3/meta", Say({}))


@pytest.fixture
def hub(world: World) -> World:
    serve_github(world.server)
    settings = GitHubSettings(kind="github", name="idp", url=world.server.url, client_id="app")
    world.provider = GitHub(settings, Secret("s"), world.tools)
    return world


async def test_github_is_asked_with_the_token_that_does_not_expire(hub: World) -> None:
    await hub.onboard(None, subject="583231")
    await hub.grow_old(150)
    assert await hub.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert await hub.groups() == ("Wonderland",)
    assert [asked[3]["Authorization"] for asked in hub.server.asked if asked[1] == "/api/v3/user"] == [
        "Bearer at"
    ]


async def test_a_github_app_rotates_its_refresh_tokens(hub: World) -> None:
    await hub.onboard(FIRST, subject="583231")
    hub.server.on("/login/oauth/access_token", tokens(SECOND, refresh_token_expires_in=1_000))
    await hub.grow_old(150)
    await hub.refresher().vouch("alice", "idp")
    row = await hub.grant()
    assert row is not None
    assert hub.vault.open(row["sealed"], hub.issuer, "583231") == Secret(SECOND)
    assert row["expires_at"] is not None
    assert await hub.groups() == ("Wonderland",)


async def test_who_takes_the_token_back_at_github_keeps_listed_keys_and_loses_groups_by_age(
    hub: World,
) -> None:
    await hub.onboard(None, subject="583231")
    hub.server.on("/api/v3/user", Say({"message": "Bad credentials"}, 401))
    await hub.grow_old(150)
    assert await hub.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert (await hub.groups(), await hub.has_key(), await hub.grant()) == (("staff", "ops"), "", None)
    await hub.grow_old(1_001)
    assert await hub.groups() == ()
    assert await hub.refresher().vouch("alice", "idp") is AccountStanding.ASK


@pytest.mark.parametrize(
    "gone",
    [Say({"message": "Not Found"}, 404), Say({**HUB["user_by_id"]["body"], "suspended_at": "2026-01-01"})],
)
async def test_a_github_account_that_is_gone_or_suspended_ends(hub: World, gone: Say) -> None:
    await hub.onboard(None, subject="583231")
    hub.server.on("/api/v3/user", Say({"message": "Bad credentials"}, 401))
    hub.server.on("/api/v3/user/583231", gone)
    await hub.grow_old(150)
    assert await hub.refresher().vouch("alice", "idp") is AccountStanding.ENDED
    assert (await hub.groups(), await hub.has_key()) == ((), "idp")


@pytest.fixture
def lab(world: World) -> World:
    world.server.on("/api/v4/user", said(LAB["user"]))
    world.server.on("/oauth/userinfo", said(LAB["userinfo"]))
    world.server.on("/.well-known/openid-configuration", Say({}))
    settings = GitLabSettings(kind="gitlab", name="idp", url=world.server.url, client_id="app")
    world.provider = GitLab(settings, Secret("s"), world.tools)
    return world


async def test_gitlab_rotates_its_refresh_tokens(lab: World) -> None:
    await lab.onboard(FIRST, subject="42")
    lab.server.on("/oauth/token", tokens(SECOND), tokens(THIRD))
    for _ in range(2):
        await lab.grow_old(150)
        await lab.refresher().vouch("alice", "idp")
    assert [asked[2]["refresh_token"] for asked in lab.server.asked if asked[1] == "/oauth/token"] == [
        FIRST,
        SECOND,
    ]
    assert await lab.groups() == tuple(LAB["userinfo"]["body"]["groups"])


async def test_a_gitlab_account_that_is_blocked_ends(lab: World) -> None:
    await lab.onboard(FIRST, subject="42")
    lab.server.on("/oauth/token", tokens(SECOND))
    lab.server.on("/api/v4/user", Say({**LAB["user"]["body"], "state": "blocked"}))
    await lab.grow_old(150)
    assert await lab.refresher().vouch("alice", "idp") is AccountStanding.ENDED
    assert (await lab.groups(), await lab.has_key()) == ((), "idp")


@pytest.mark.parametrize("path", ["/api/v3/meta"])
async def test_a_forge_that_is_away_is_an_outage_without_a_grant_too(hub: World, path: str) -> None:
    await hub.onboard(None, subject="583231")
    async with hub.stores[0].database.writing() as connection:
        await connection.execute(sa.delete(grants_table))
    await hub.grow_old(1_001)
    hub.server.on(path, HANG_UP)
    assert await hub.refresher().vouch("alice", "idp") is AccountStanding.GOOD
    assert await hub.groups() == ("staff", "ops")
