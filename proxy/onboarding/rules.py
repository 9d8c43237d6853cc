"""Rules for admission: ordered conditions on the facts of an approved account. Pure.

The first rule that matches decides. Within a rule every given condition must hold, and one of its entries
suffices; a rule without conditions matches every account. Names of organisations, groups and domains are
compared without regard to case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.settings.onboarding import Action, RuleSettings


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of an account that rules can test."""

    provider: str
    name: str
    email: str = ""
    """Verified by the provider, or empty."""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """The action, and the rule that chose it; an empty rule means that none matched."""

    action: Action
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in order, and the action when none matches."""

    rules: tuple[RuleSettings, ...] = ()
    otherwise: Action = "refuse"

    def decide(self, facts: Facts) -> RuleOutcome:
        """Return the outcome of the first rule that matches."""
        for rule in self.rules:
            if _matches(rule, facts):
                return RuleOutcome(rule.action, rule.name)
        return RuleOutcome(self.otherwise)


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
