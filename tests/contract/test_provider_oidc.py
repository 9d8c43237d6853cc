"""OpenID providers: discovery, their quirks, and every way in which an ID token can be wrong."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from proxy.errors.login import CodeExpired, ProviderMisconfigured, ProviderUnavailable
from proxy.http.secret import Secret
from proxy.onboarding import idtoken
from proxy.onboarding.authcode import WebLogin, redeem
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.idtoken import ExpectedClaims, Jwks
from proxy.onboarding.providers.base import ApprovalFacts
from proxy.onboarding.providers.oidc import Oidc, OidcEndpoints
from proxy.settings.onboarding import MappingSettings, OidcSettings
from tests.fakes.provider import HANG_UP, Leaping, Say, Scripted, tools

ABOUT = ApprovalFacts("alice", "192.0.2.1", "SHA256:x")
EC = ECKey.generate_key("P-256", {"use": "sig", "kid": "ec"})
EC2 = ECKey.generate_key("P-256", {"use": "sig", "kid": "ec2"})
RSA = RSAKey.generate_key(2048, {"use": "sig", "kid": "rsa"})
ED = OKPKey.generate_key("Ed25519", {"use": "sig", "kid": "ed"})


def key_set(*keys: Any) -> Say:
    return Say({"keys": [key.as_dict(private=False) for key in keys]})


class World:
    def __init__(self, server: Scripted) -> None:
        self.server = server
        self.time = Leaping()
        self.tools = tools(self.time.clock)
        self.document: dict[str, Any] = {
            "issuer": server.url,
            "authorization_endpoint": f"{server.url}/authorize",
            "token_endpoint": f"{server.url}/token",
            "jwks_uri": f"{server.url}/jwks",
            "device_authorization_endpoint": f"{server.url}/device",
            "userinfo_endpoint": f"{server.url}/userinfo",
        }
        self.publish()
        server.on("/jwks", key_set(EC, RSA, ED))
        server.on("/userinfo", Say({"sub": "s1", "preferred_username": "alice", "groups": ["g"]}))

    def publish(self, **changes: Any) -> None:
        document = {key: value for key, value in (self.document | changes).items() if value is not None}
        self.server.on("/.well-known/openid-configuration", Say(document))

    def provider(self, **settings: Any) -> Oidc:
        chosen = {"kind": "oidc", "issuer": self.server.url, "client_id": "me", **settings}
        return Oidc(OidcSettings.model_validate(chosen), None, self.tools)

    def token(self, key: Any = EC, algorithm: str = "ES256", header: Any = None, **changes: Any) -> Secret:
        now = int(time.time())
        claims = {"iss": self.server.url, "aud": "me", "sub": "s1", "iat": now, "exp": now + 60, "nonce": "n"}
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        shown = {"alg": algorithm, "kid": key.kid} | (header or {})
        return Secret(jwt.encode(shown, claims, key, algorithms=[algorithm]))

    async def claims(self, token: Secret, nonce: str | None = "n", **settings: Any) -> dict[str, Any]:
        provider = self.provider(**settings)
        return await provider.claims(Tokens(Secret("at"), token), Secret(nonce) if nonce else None)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Scripted() as server:
        made = World(server)
        yield made
        await made.tools.http.close()  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------- discovery


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "https://login.example/{tenantid}/v2.0"}, "not the configured issuer"),
        ({"token_endpoint": "http://192.0.2.1/token"}, "token_endpoint.*must be https"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
        ({"jwks_uri": None}, "jwks_uri"),
        ({"authorization_endpoint": 5}, "authorization_endpoint"),
    ],
)
async def test_a_document_that_cannot_be_trusted(world: World, changes: dict[str, Any], said: str) -> None:
    world.publish(**changes)
    with pytest.raises(ProviderMisconfigured, match=said):
        await world.provider().endpoints()


async def test_https_leads_to_https_only() -> None:
    time_, url = Leaping(), "https://idp.example"

    class Http:
        async def send(self, request: Any) -> Any:
            del request
            from proxy.http.client import Reply

            body = (
                f'{{"issuer":"{url}","authorization_endpoint":"{url}/a","token_endpoint":"{url}/t",'
                '"jwks_uri":"http://127.0.0.1:80/jwks"}'
            )
            return Reply(200, {}, body.encode())

    from proxy.onboarding.providers.base import Tools
    from proxy.settings.onboarding import KeyListSettings

    chosen = OidcSettings(kind="oidc", issuer=url, client_id="me")
    provider = Oidc(chosen, None, Tools(Http(), time_.clock, KeyListSettings()))
    with pytest.raises(ProviderMisconfigured, match="jwks_uri is not https"):
        await provider.endpoints()


async def test_a_final_slash_is_part_of_the_issuer(world: World) -> None:
    world.publish(issuer=f"{world.server.url}/")
    assert (await world.provider(issuer=f"{world.server.url}/").endpoints()).jwks
    with pytest.raises(ProviderMisconfigured):
        await world.provider().endpoints()


async def test_no_device_endpoint_is_said_in_words(world: World) -> None:
    world.publish(device_authorization_endpoint=None)
    with pytest.raises(ProviderMisconfigured, match="enable the device flow"):
        await world.provider().start_device(ABOUT, 900)


async def test_discovery_is_asked_once_an_hour_and_survives_an_outage(world: World) -> None:
    provider = world.provider()
    for _ in range(5):
        await provider.endpoints()
    assert world.server.count("/.well-known/openid-configuration") == 1
    world.time.time += 3_601
    world.server.on("/.well-known/openid-configuration", HANG_UP)
    assert (await provider.endpoints()).token
    world.publish(token_endpoint=f"{world.server.url}/token2")
    world.time.time += 61
    assert (await provider.endpoints()).token.endswith("token2")


async def test_a_provider_that_is_down_from_the_start(world: World) -> None:
    world.server.on("/.well-known/openid-configuration", Say(b"", 502))
    with pytest.raises(ProviderUnavailable):
        await world.provider().start_device(ABOUT, 900)


async def test_how_the_client_proves_itself(world: World) -> None:
    for methods, basic in (
        (None, True),
        (["client_secret_basic"], True),
        (["client_secret_post", "x"], False),
    ):
        world.publish(token_endpoint_auth_methods_supported=methods)
        assert (await world.provider().endpoints()).basic is basic


# ---------------------------------------------------------------------------------------- busy providers


@pytest.mark.parametrize(
    "busy",
    [
        Say({"error": "temporarily_unavailable"}, 503),
        Say({"error": "too_many_requests"}, 429),
        Say({"error": "server_error"}, 400),
        Say({"error": "Service Unavailable"}, 503),
        Say(b"", 429),
    ],
)
async def test_a_busy_provider_is_no_matter_for_the_operator_when_a_code_is_redeemed(
    world: World, busy: Say
) -> None:
    world.server.on("/token", busy)
    client = await world.provider().code_client()
    with pytest.raises(ProviderUnavailable) as caught:
        await redeem(client, WebLogin("http://127.0.0.1/callback"), Secret("code"), world.tools.http)
    assert caught.value.user_message == "oidc is busy at the moment; try again in a few minutes"


async def test_a_code_that_was_used_before_is_no_matter_for_the_operator(world: World) -> None:
    world.server.on("/token", Say({"error": "invalid_grant"}, 400))
    client = await world.provider().code_client()
    with pytest.raises(CodeExpired):
        await redeem(client, WebLogin("http://127.0.0.1/callback"), Secret("code"), world.tools.http)


# --------------------------------------------------------------------------------------- refresh tokens


@pytest.mark.parametrize(
    ("keeps", "offers", "settings", "asked"),
    [
        (True, True, {}, True),
        (False, True, {}, False),
        (True, False, {}, False),
        (True, True, {"offline_access": False}, False),
    ],
)
async def test_a_refresh_token_is_asked_for_where_it_is_offered_and_kept(
    world: World, keeps: bool, offers: bool, settings: dict[str, Any], asked: bool
) -> None:
    world.tools = replace(world.tools, keeps_grants=keeps)
    world.publish(scopes_supported=["openid", "offline_access"] if offers else None)
    client = await world.provider(**settings).code_client()
    assert ("offline_access" in client.scopes) is asked
    assert client.extra == ({"prompt": "consent"} if asked else {})


async def test_google_gives_refresh_tokens_by_a_parameter_of_its_own(world: World) -> None:
    google = OidcSettings(kind="oidc", issuer="https://accounts.google.com", client_id="me")
    provider = Oidc(google, None, replace(world.tools, keeps_grants=True))
    provider._endpoints = OidcEndpoints("https://a.example", "https://t.example", "https://j.example")
    provider._discovered_at = world.time.time
    client = await provider.code_client()
    assert client.extra == {"access_type": "offline", "prompt": "consent"}
    assert "offline_access" not in client.scopes


# ------------------------------------------------------------------------------------------ ID tokens


@pytest.mark.parametrize(
    ("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256"), (RSA, "PS256"), (ED, "Ed25519")]
)
async def test_good_tokens(world: World, key: Any, algorithm: str) -> None:
    claims = await world.claims(world.token(key, algorithm))
    assert (claims["sub"], claims["preferred_username"]) == ("s1", "alice")


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_the_older_name_of_ed25519(world: World) -> None:
    assert (await world.claims(world.token(ED, "EdDSA")))["sub"] == "s1"


PAST, FUTURE = 1_000_000_000, 9_000_000_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "you"}, "another client"),
        ({"aud": None}, "another client"),
        ({"aud": ["me", "you"]}, "given to another client"),
        ({"aud": ["me", "you"], "azp": "you"}, "given to another client"),
        ({"exp": PAST}, "expired"),
        ({"exp": None}, "expired"),
        ({"exp": "tomorrow"}, "expired"),
        ({"exp": True}, "expired"),
        ({"iat": FUTURE}, "not valid yet"),
        ({"iat": None}, "not valid yet"),
        ({"sub": ""}, "no subject"),
        ({"sub": None}, "no subject"),
        ({"sub": "x" * 256}, "no subject"),
        ({"nonce": "other"}, "another login"),
        ({"nonce": None}, "another login"),
    ],
)
async def test_claims_that_are_not_for_us(world: World, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProviderMisconfigured, match=said):
        await world.claims(world.token(**changes))


async def test_several_audiences_with_us_as_the_authorized_party(world: World) -> None:
    assert (await world.claims(world.token(aud=["me", "you"], azp="me")))["sub"] == "s1"


async def test_signatures_that_prove_nothing(world: World) -> None:
    good = world.token().reveal()
    head, body, signature = good.split(".")
    stranger = ECKey.generate_key("P-256", {"kid": "ec"})
    shared = OctKey.import_key("hush-hush-hush-hush-hush-hush-hush", {"kid": "rsa"})
    none = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    for token in (
        world.token(stranger),
        Secret(f"{none}.{body}."),
        Secret(f"{head}.{body}."),
        Secret(f"{head}.{body}.{'A' * len(signature)}"),
        Secret("not.a.token"),
        Secret(""),
        Secret("a" * 100_000),
        Secret(jwt.encode({"alg": "HS256", "kid": "rsa"}, {"iss": world.server.url}, shared)),
        world.token(header={"typ": "at+jwt"}),
        Secret(f"{head}{body}{signature}"),
    ):
        with pytest.raises(ProviderMisconfigured) as caught:
            await world.claims(token)
        if token.reveal():
            assert token.reveal() not in str(caught.value)


async def test_keys_that_a_token_brings_along_are_not_used(world: World) -> None:
    stranger = ECKey.generate_key("P-256", {"kid": "new"})
    header = {"jwk": stranger.as_dict(private=False), "jku": f"{world.server.url}/evil"}
    with pytest.raises(ProviderMisconfigured):
        await world.claims(world.token(stranger, header=header))
    assert world.server.count("/evil") == 0


async def test_an_algorithm_outside_the_list(world: World) -> None:
    with pytest.raises(ProviderMisconfigured):
        await world.claims(world.token(RSA, "RS256"), algorithms=["ES256"])


async def test_a_code_must_come_with_an_id_token(world: World) -> None:
    with pytest.raises(ProviderMisconfigured, match="no ID token"):
        await world.provider().claims(Tokens(Secret("at")), Secret("n"))
    assert (await world.provider().claims(Tokens(Secret("at")), None))["sub"] == "s1"


async def test_userinfo_of_another_subject(world: World) -> None:
    world.server.on("/userinfo", Say({"sub": "s2", "preferred_username": "mallory"}))
    with pytest.raises(ProviderMisconfigured, match="another subject"):
        await world.claims(world.token())


async def test_google_signs_without_the_scheme() -> None:
    world_time = Leaping()

    class Keys(Jwks):
        async def keys(self, *, unknown_in: Any = None) -> Any:
            return idtoken._key_set({"keys": [EC.as_dict(private=False)]})

    google = OidcSettings(kind="oidc", issuer="https://accounts.google.com", client_id="me")
    expected = Oidc(google, None, tools(world_time.clock))._expected()
    now = int(time.time())
    for issuer in ("https://accounts.google.com", "accounts.google.com"):
        claims = {"iss": issuer, "aud": "me", "sub": "1", "iat": now, "exp": now + 9}
        token = Secret(jwt.encode({"alg": "ES256", "kid": "ec"}, claims, EC))
        keys = Keys("google", "https://x.example", None)  # type: ignore[arg-type]
        assert (await idtoken.verify(token, keys, expected))["iss"] == issuer


# -------------------------------------------------------------------------------------------- key sets


async def test_keys_rotate(world: World) -> None:
    provider = world.provider()
    await provider.claims(Tokens(Secret("at"), world.token()), Secret("n"))
    world.server.on("/jwks", key_set(EC2))
    assert (await provider.claims(Tokens(Secret("at"), world.token(EC2)), Secret("n")))["sub"] == "s1"
    assert world.server.count("/jwks") == 2
    world.server.on("/jwks", key_set(EC))
    world.time.time += 31
    assert (await provider.claims(Tokens(Secret("at"), world.token()), Secret("n")))["sub"] == "s1"


async def test_unknown_keys_do_not_make_us_ask_without_end(world: World) -> None:
    provider = world.provider()
    for _ in range(10):
        with pytest.raises(ProviderMisconfigured, match="does not publish"):
            await provider.claims(Tokens(Secret("at"), world.token(EC2)), Secret("n"))
    assert world.server.count("/jwks") == 2


async def test_old_keys_serve_through_an_outage(world: World) -> None:
    provider = world.provider()
    await provider.claims(Tokens(Secret("at"), world.token()), Secret("n"))
    for answer in (Say(b"", 500), HANG_UP, Say(b"<html>"), Say({"keys": []}), Say({"keys": "x"}), Say([])):
        world.server.on("/jwks", answer)
        world.time.time += 700
        assert await provider.claims(Tokens(Secret("at"), world.token()), Secret("n"))


async def test_no_keys_at_all(world: World) -> None:
    world.server.on("/jwks", Say(b"", 500))
    with pytest.raises(ProviderUnavailable):
        await world.claims(world.token())


async def test_keys_of_kinds_that_are_not_known_are_left_out(world: World) -> None:
    entries = [{"kty": "XX", "kid": "a"}, {"kty": "EC", "kid": "b"}, 5, EC.as_dict(private=False)]
    world.server.on("/jwks", Say({"keys": entries}))
    assert (await world.claims(world.token()))["sub"] == "s1"


async def test_a_symmetric_key_in_the_set_signs_nothing(world: World) -> None:
    shared = OctKey.import_key("hush-hush-hush-hush-hush-hush-hush", {"kid": "oct"})
    world.server.on("/jwks", Say({"keys": [shared.as_dict(), EC.as_dict(private=False)]}))
    token = Secret(jwt.encode({"alg": "HS256", "kid": "oct"}, {"iss": world.server.url}, shared))
    with pytest.raises(ProviderMisconfigured):
        await world.claims(token)


async def test_expected_is_what_it_says() -> None:
    assert ExpectedClaims("p", ("i",), "a", ("ES256",)).audience == "a"


# --------------------------------------------------------------------------------- keys in a claim


async def test_keys_in_a_claim(world: World) -> None:
    world.server.on(
        "/userinfo", Say({"sub": "s1", "preferred_username": "alice", "sshKey": ["ssh-ed25519 AA"]})
    )
    mapping = MappingSettings(keys="claims.sshKey")
    provider = world.provider(approval="device", mapping=mapping.model_dump())
    profile = await provider.profile(Tokens(Secret("at"), world.token(nonce=None)))
    assert profile.keys == ("ssh-ed25519 AA",)
    assert (profile.issuer, profile.subject) == (world.server.url, "s1")
    assert await provider.keys("s1", "alice") is None
