"""Who may onboard: ordered rules over facts of an approved account; pure.

The first rule that matches decides. Within a rule every condition that is given must hold, and one of
its entries suffices; a rule without conditions matches everybody. Names of organisations, groups and
domains are compared without regard to case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.settings.onboarding import Action, RuleSettings


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules can ask about an account."""

    provider: str
    name: str
    email: str = ""
    """Verified by the provider, or empty."""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and which rule said so; an empty rule means that none matched."""

    action: Action
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in order, and what holds when none matches."""

    rules: tuple[RuleSettings, ...] = ()
    otherwise: Action = "refuse"

    def decide(self, facts: Facts) -> Verdict:
        """Give the verdict of the first rule that matches."""
        for rule in self.rules:
            if _matches(rule, facts):
                return Verdict(rule.action, rule.name)
        return Verdict(self.otherwise)


def _matches(rule: RuleSettings, facts: Facts) -> bool:
    groups = [group.lower().strip("/") for group in facts.groups]
    domain = facts.email.rpartition("@")[2].lower()
    checks = (
        (rule.providers, lambda wanted: facts.provider == wanted),
        (rule.names, lambda wanted: fnmatchcase(facts.name, wanted.lower())),
        (rule.email_domains, lambda wanted: bool(domain) and domain == wanted.lower().lstrip("@")),
        (rule.groups, lambda wanted: any(fnmatchcase(group, _bare(wanted)) for group in groups)),
        (rule.organizations, lambda wanted: _is_member(groups, _bare(wanted))),
    )
    return all(not entries or any(map(holds, entries)) for entries, holds in checks)


def _is_member(groups: Sequence[str], organization: str) -> bool:
    return any(group == organization or group.startswith(f"{organization}/") for group in groups)


def _bare(group: str) -> str:
    return group.lower().strip("/")
