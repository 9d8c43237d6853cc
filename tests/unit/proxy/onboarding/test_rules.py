import pytest

from proxy.onboarding.rules import Facts, RuleOutcome, Rules
from proxy.settings.onboarding import (
    DevSettings,
    FrontDoorSettings,
    OidcSettings,
    OnboardingSettings,
    RuleSettings,
)

ALICE = Facts("github", "alice", "alice@corp.example", ("Acme", "acme/platform"))


def rule(action: str = "allow", **conditions: tuple[str, ...]) -> RuleSettings:
    return RuleSettings(name="r", action=action, **conditions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({}, True),
        ({"organizations": ("acme",)}, True),
        ({"organizations": ("ACME",)}, True),
        ({"organizations": ("acm",)}, False),
        ({"organizations": ("acme/platform",)}, True),
        ({"organizations": ("other", "acme")}, True),
        ({"organizations": ("*",)}, False),
        ({"groups": ("acme/platform",)}, True),
        ({"groups": ("acme/*",)}, True),
        ({"groups": ("acme/plat",)}, False),
        ({"groups": ("platform",)}, False),
        ({"email_domains": ("corp.example",)}, True),
        ({"email_domains": ("@CORP.example",)}, True),
        ({"email_domains": ("example",)}, False),
        ({"email_domains": ("evilcorp.example",)}, False),
        ({"names": ("al*",)}, True),
        ({"names": ("AL*",)}, True),
        ({"names": ("bob", "carol")}, False),
        ({"providers": ("github",)}, True),
        ({"providers": ("gitlab",)}, False),
        ({"names": ("alice",), "email_domains": ("corp.example",)}, True),
        ({"names": ("alice",), "email_domains": ("other.example",)}, False),
    ],
)
def test_conditions(conditions: dict[str, tuple[str, ...]], matches: bool) -> None:
    outcome = Rules((rule(**conditions),), "refuse").decide(ALICE)
    assert outcome == (RuleOutcome("allow", "r") if matches else RuleOutcome("refuse"))


def test_an_unverified_address_matches_no_domain() -> None:
    assert Rules((rule(email_domains=("",)),)).decide(Facts("github", "alice")).action == "refuse"


def test_a_subgroup_of_a_namesake_is_no_member() -> None:
    facts = Facts("gitlab", "eve", groups=("eve/acme", "acme-fans", "acmeco"))
    assert Rules((rule(organizations=("acme",), groups=("acme",)),)).decide(facts).action == "refuse"


def test_the_first_match_decides() -> None:
    rules = Rules(
        (
            RuleSettings(name="blocked", action="refuse", names=("eve",)),
            RuleSettings(name="staff", action="allow", organizations=("acme",)),
            RuleSettings(name="guests", action="waitlist"),
        )
    )
    assert rules.decide(ALICE) == RuleOutcome("allow", "staff")
    assert rules.decide(Facts("github", "eve", groups=("acme",))) == RuleOutcome("refuse", "blocked")
    assert rules.decide(Facts("github", "bob")) == RuleOutcome("waitlist", "guests")


OIDC = OidcSettings(kind="oidc", issuer="https://idp.example", client_id="me")


@pytest.mark.parametrize(
    ("settings", "embedded", "kinds", "otherwise"),
    [
        (FrontDoorSettings(), True, ["dev"], "allow"),
        (FrontDoorSettings(), False, [], "refuse"),
        (FrontDoorSettings(providers=(OIDC,)), True, ["oidc"], "refuse"),
        (FrontDoorSettings(providers=(OIDC, DevSettings())), True, ["oidc", "dev"], "refuse"),
        (FrontDoorSettings(providers=(DevSettings(),)), False, ["dev"], "allow"),
        (FrontDoorSettings(onboarding=OnboardingSettings(otherwise="waitlist")), True, ["dev"], "waitlist"),
        (FrontDoorSettings(onboarding=OnboardingSettings(rules=(rule(),))), True, ["dev"], "refuse"),
    ],
)
def test_what_holds_without_settings(
    settings: FrontDoorSettings, embedded: bool, kinds: list[str], otherwise: str
) -> None:
    effective = settings.in_effect(embedded=embedded)
    assert [provider.kind for provider in effective.providers] == kinds
    assert effective.onboarding.otherwise == otherwise


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"providers": [{"kind": "dev"}, {"kind": "dev"}]}, "the same name"),
        ({"onboarding": {"rules": [{"name": "x", "action": "allow", "providers": ["gihub"]}]}}, "gihub"),
        (
            {"providers": [{"kind": "oidc", "issuer": "http://idp.example", "client_id": "x"}]},
            "must be https",
        ),
        (
            {
                "providers": [
                    {"kind": "oidc", "issuer": "https://i.example", "client_id": "x", "approval": "device"}
                ]
            },
            "mapping.keys",
        ),
        ({"providers": [{"kind": "github", "client_id": "x", "client_secret": "s"}]}, "Extra inputs"),
        (
            {
                "providers": [
                    {"kind": "oidc", "issuer": "https://i.example", "client_id": "x", "algorithms": ["HS256"]}
                ]
            },
            "RS256",
        ),
        (
            {
                "providers": [
                    {"kind": "oidc", "issuer": "https://i.example", "client_id": "x", "algorithms": ["none"]}
                ]
            },
            "RS256",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FrontDoorSettings.model_validate(settings)
