"""`fairlead provider check`: what it says of providers that are well, and of those that are not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.identity.directory import Account
from proxy.onboarding.checkup import Checkup
from proxy.settings.onboarding import FrontDoorSettings
from tests.fakes.provider import HANG_UP, Leaping, Say, Scripted, fixture, said
from tests.wire import forked

HUB, LAB = fixture("github"), fixture("gitlab")
DISCOVERY = "/.well-known/openid-configuration"
JWK = {"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}

Look = Callable[..., Any]


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as made:
        yield made


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("hush-hush\n")
    return file


def serve_oidc(server: Scripted, **more: Any) -> None:
    document = {
        "issuer": server.url,
        "authorization_endpoint": f"{server.url}/authorize",
        "token_endpoint": f"{server.url}/token",
        "jwks_uri": f"{server.url}/jwks",
        **more,
    }
    server.on(DISCOVERY, Say(document))
    server.on("/jwks", Say({"keys": [JWK]}))


async def look(
    provider: dict[str, Any], *, start: bool = False, account: str = ""
) -> list[tuple[str, bool | None, str]]:
    door = FrontDoorSettings.model_validate({"providers": [provider]})
    title = door.providers[0].title
    accounts = {title: Account(title, "", account, account)} if account else {}
    checkup = Checkup(door, accounts, start=start, clock=Leaping().clock)
    try:
        return [(found.what, found.ok, found.says) async for found in checkup.look(door.providers[0])]
    finally:
        await checkup.close()


async def test_a_github_that_is_well(server: Scripted, secret: Path) -> None:
    server.on("/api/v3/meta", Say({"verifiable_password_authentication": True}))
    server.on("/api/v3/user/583231", said(HUB["user_by_id"]))
    server.on("/api/v3/users/Alice-Liddell/keys", said(HUB["keys"]))
    server.on("/login/device/code", said(HUB["device"]))
    settings = {
        "kind": "github",
        "url": server.url,
        "client_id": "app",
        "client_secret_file": str(secret),
    }
    found = await look(settings, start=True, account="583231")
    assert [(what, ok) for what, ok, _ in found] == [
        ("settings", True),
        ("API", True),
        ("approval", True),
        ("keys", True),
    ]
    assert found[0][2] == "client app, with a secret"
    assert found[2][2].startswith("gave a code for https://")
    assert found[3][2].endswith("for account 583231")
    (meta,) = [asked for asked in server.asked if asked[1] == "/api/v3/meta"]
    assert meta[3]["Authorization"].startswith("Basic ")


async def test_nothing_is_started_without_being_told(server: Scripted) -> None:
    server.on("/api/v3/meta", Say({}))
    found = await look({"kind": "github", "url": server.url, "client_id": "app"})
    assert [(what, ok) for what, ok, _ in found][2:] == [("approval", None), ("keys", None)]
    assert [asked[0] for asked in server.asked] == ["GET"]


async def test_a_github_that_refuses_client_and_secret(server: Scripted, secret: Path) -> None:
    server.on("/api/v3/meta", Say({"message": "Bad credentials"}, 401))
    settings = {"kind": "github", "url": server.url, "client_id": "x", "client_secret_file": str(secret)}
    found = await look(settings)
    assert found[1][:2] == ("API", False)
    assert "status 401" in found[1][2]
    assert len(found) == 2


async def test_a_device_flow_that_is_off(server: Scripted) -> None:
    server.on("/api/v3/meta", Say({}))
    server.on("/login/device/code", Say({"error": "device_flow_disabled"}))
    found = await look({"kind": "github", "url": server.url, "client_id": "app"}, start=True)
    assert found[2][:2] == ("approval", False)
    assert "device_flow_disabled" in found[2][2]


async def test_a_gitlab_that_is_well_and_one_that_is_another(server: Scripted) -> None:
    server.on(DISCOVERY, Say({"issuer": server.url}))
    server.on("/api/v4/users/42", said(LAB["user"]))
    server.on("/api/v4/users/42/keys", said(LAB["keys"]))
    settings = {"kind": "gitlab", "url": server.url, "client_id": "app"}
    found = await look(settings, account="42")
    assert [(what, ok) for what, ok, _ in found][:3] == [
        ("settings", True),
        ("discovery", True),
        ("approval", None),
    ]
    assert found[3][0] == "keys"
    server.on(DISCOVERY, Say({"issuer": "https://gitlab.example"}))
    found = await look(settings)
    assert found[-1][:2] == ("discovery", False)
    assert "calls itself 'https://gitlab.example', not the configured url" in found[-1][2]


async def test_an_openid_provider_that_is_well(server: Scripted) -> None:
    serve_oidc(server, userinfo_endpoint=f"{server.url}/me")
    found = await look({"kind": "oidc", "name": "corp", "issuer": server.url, "client_id": "app"})
    assert [(what, ok) for what, ok, _ in found] == [
        ("settings", True),
        ("discovery", True),
        ("signing keys", True),
        ("approval", True),
        ("keys", None),
    ]
    assert found[1][2].endswith("; has UserInfo")
    assert found[3][2].endswith("http://login.localhost:8022/callback must be registered there")


@pytest.mark.parametrize(
    ("more", "script", "what", "said_of_it"),
    [
        ({"issuer": "https://other.example"}, {}, "discovery", "calls itself 'https://other.example'"),
        ({"token_endpoint": None}, {}, "discovery", "token_endpoint"),
        ({}, {DISCOVERY: HANG_UP}, "discovery", DISCOVERY),
        ({}, {DISCOVERY: Say(b"<html>")}, "discovery", "not JSON"),
        ({}, {"/jwks": Say({}, 500)}, "signing keys", ""),
        ({}, {"/jwks": Say({"keys": []})}, "signing keys", ""),
    ],
)
async def test_an_openid_provider_that_is_not(
    server: Scripted, more: dict[str, Any], script: dict[str, Say], what: str, said_of_it: str
) -> None:
    serve_oidc(server, **more)
    for path, answer in script.items():
        server.on(path, answer)
    found = await look({"kind": "oidc", "issuer": server.url, "client_id": "app"})
    (wrong,) = [one for one in found if one[1] is False]
    assert wrong[0] == what
    assert said_of_it in wrong[2]


async def test_an_openid_provider_without_device_flow(server: Scripted) -> None:
    serve_oidc(server)
    settings = {
        "kind": "oidc",
        "issuer": server.url,
        "client_id": "app",
        "approval": "device",
        "mapping": {"keys": "claims.ssh_keys"},
    }
    found = await look(settings)
    assert ("approval", False, "the discovery document has no device_authorization_endpoint") in found


async def test_settings_that_cannot_be_used(server: Scripted, tmp_path: Path) -> None:
    found = await look({"kind": "github", "client_id": "x", "mapping": {"name": "claims.("}})
    assert [(what, ok) for what, ok, _ in found] == [("settings", False)]
    found = await look({"kind": "github", "client_id": "x", "client_secret_file": str(tmp_path / "none")})
    assert [(what, ok) for what, ok, _ in found] == [("settings", False)]
    found = await look({"kind": "dev"})
    assert [(what, ok) for what, ok, _ in found] == [("settings", True)]


async def test_the_command(server: Scripted, tmp_path: Path, secret: Path) -> None:
    server.on("/api/v3/meta", Say({}, 401))
    config = tmp_path / "fairlead.yaml"
    providers = [
        {"kind": "github", "url": server.url, "client_id": "app", "client_secret_file": str(secret)},
        {"kind": "dev"},
    ]
    config.write_text(json.dumps({"home": str(tmp_path / "home"), "front_door": {"providers": providers}}))

    async def run(*words: str) -> tuple[int, str, str]:
        command = ("--config", str(config), "provider", "check", *words)
        done = await asyncio.to_thread(forked.fairlead, *command)
        return done.returncode, done.stdout, done.stderr

    status, out, err = await run("--json")
    assert (status, err) == (1, "")
    assert [(row["provider"], row["what"], row["ok"]) for row in json.loads(out)] == [
        ("github", "settings", True),
        ("github", "API", False),
        ("dev", "settings", True),
    ]
    assert "hush" not in out
    status, out, _ = await run("dev")
    assert (status, out.split("\t")[:3]) == (0, ["dev", "settings", "right"])
    assert await run("other") == (1, "", "fairlead: there is no provider other; there is github, dev\n")
