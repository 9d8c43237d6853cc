"""The mapping of a provider's claims to a user's fields, by expressions of the Common Expression Language.

Expressions see one variable, `claims`: the provider's answer, as JSON. They are compiled and type-checked at
start; errors name the setting. They come from the operator, the claims from a provider: `proxy.cel` makes
sure that evaluation reaches nothing else and ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from proxy.cel import CompiledExpression, Environment, ExpressionError
from proxy.errors import SettingsError
from proxy.errors.login import ProviderMisconfigured
from proxy.settings.onboarding import MappingSettings

MAX_GROUPS = 2_000
MAX_KEYS = 500

_FULL_NAME = "has(claims.name) && claims.name != null ? claims.name : ''"
_VERIFIED_EMAIL = (
    "has(claims.email) && claims.email != null && has(claims.email_verified) "
    "&& claims.email_verified in [true, 'true'] ? claims.email : ''"
)
_GROUPS = "has(claims.groups) && claims.groups != null ? claims.groups : []"


def _defaults(name: str) -> MappingSettings:
    return MappingSettings(
        name=name, full_name=_FULL_NAME, email=_VERIFIED_EMAIL, groups=_GROUPS, uid="null", keys="null"
    )


DEFAULTS: Mapping[str, MappingSettings] = {
    "github": _defaults("claims.login"),
    "gitlab": _defaults("claims.username"),
    "oidc": _defaults("claims.preferred_username"),
    "dev": _defaults("claims.preferred_username"),
}
"""By kind of provider. For github and gitlab, Fairlead adds `claims.groups` and `claims.email_verified` from
the endpoints that have them (see `providers`).
"""

_TYPES = {
    "name": ("STRING", "DYN"),
    "full_name": ("STRING", "DYN"),
    "email": ("STRING", "DYN"),
    "groups": ("LIST", "DYN", "NULL"),
    "uid": ("INT", "DYN", "NULL"),
    "keys": ("LIST", "DYN", "NULL"),
}


@dataclass(frozen=True, slots=True)
class MappedFields:
    """The result of a mapping."""

    name: str
    full_name: str
    email: str
    groups: tuple[str, ...]
    uid: int | None
    keys: tuple[str, ...] | None


class ClaimMapping:
    """The compiled expressions of one provider."""

    def __init__(self, provider: str, kind: str, settings: MappingSettings) -> None:
        """Compile the expressions; an empty one in `settings` is the default of `kind`.

        Raises: SettingsError listing every expression that cannot be used.
        """
        self._provider = provider
        self._programs: dict[str, CompiledExpression] = {}
        problems = []
        for field in _TYPES:
            source = getattr(settings, field) or getattr(DEFAULTS[kind], field)
            try:
                self._programs[field] = _compile(field, source)
            except ExpressionError as exc:
                problems.append(f"mapping.{field} of provider {provider}: {exc}")
        if problems:
            raise SettingsError("; ".join(problems))

    def apply(self, claims: Mapping[str, Any]) -> MappedFields:
        """Map a provider's claims.

        Raises: ProviderMisconfigured naming the setting that does not fit; never a value of a claim.
        """
        data = {"claims": dict(claims)}
        values = {field: self._evaluate(field, data) for field in self._programs}
        return MappedFields(
            name=self._text("name", values["name"]).strip().lower(),
            full_name=_printable(self._text("full_name", values["full_name"])),
            email=self._text("email", values["email"]).strip(),
            groups=self._texts("groups", values["groups"], MAX_GROUPS) or (),
            uid=self._uid(values["uid"]),
            keys=self._texts("keys", values["keys"], MAX_KEYS),
        )

    def _evaluate(self, field: str, data: Mapping[str, Any]) -> Any:
        try:
            return self._programs[field].evaluate(data)
        except ExpressionError as exc:
            raise self._misfit(field, str(exc)) from None

    def _text(self, field: str, value: Any) -> str:
        if value is None and field != "name":
            return ""
        if not isinstance(value, str) or len(value) > 1_000:
            raise self._misfit(field, f"the result is no short text but {type(value).__name__}")
        return value

    def _texts(self, field: str, value: Any, limit: int) -> tuple[str, ...] | None:
        if value is None:
            return None
        if isinstance(value, str):
            value = [value]  # some providers write a list of one as its only entry
        if not isinstance(value, list) or len(value) > limit:
            raise self._misfit(field, f"the result is no list of at most {limit}")
        return tuple(self._entry(field, entry) for entry in value)

    def _entry(self, field: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) > 16_384:
            raise self._misfit(field, "an entry of the list is no text")
        return value

    def _uid(self, value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            raise self._misfit("uid", "the result is no number from 1 to 2147483647")
        return value

    def _misfit(self, field: str, reason: str) -> ProviderMisconfigured:
        return ProviderMisconfigured(
            f"mapping.{field} of provider {self._provider} does not fit its claims: {reason[:200]}",
            user_message=f"login by {self._provider} does not work; its settings need an operator",
        )


def _compile(field: str, source: str) -> CompiledExpression:
    program = _environment().compile(source)
    if program.kind not in _TYPES[field]:
        raise ExpressionError(f"gives {program.kind}, expected {_TYPES[field][0]}")
    return program


@cache
def _environment() -> Environment:
    return Environment({"claims": "map"})


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()[:200]
