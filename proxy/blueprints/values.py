"""Types of single values in blueprints, each with the text of its error.

Only the form of a value is checked here; whether it makes sense is known only where it is used.
"""

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?")
_SUFFIXES = {
    **{suffix: Decimal(1000) ** (power - 3) for power, suffix in enumerate(["n", "u", "m", "", *"kMGTPE"])},
    **{f"{suffix}i": Decimal(1024) ** (power + 1) for power, suffix in enumerate("KMGTPE")},
}


class Part(BaseModel):
    """One section: every field is known, strictly typed and immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def misfit(at: tuple[str | int, ...], reason: str) -> PydanticCustomError:
    """Return the error of a validator of several fields; `at` is the location of the one to change."""
    return PydanticCustomError("misfit", "{reason}", {"reason": reason, "at": at})


def _of_form(pattern: str, words: str, *, at_most: int = 1_024) -> AfterValidator:
    """Return a validator for text that `pattern` matches as a whole.

    `words` end the sentence "… is not …".
    """
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > at_most or not compiled.fullmatch(text):
            raise ValueError(f"{text[:100]!r} is not {words}")
        return text

    return AfterValidator(check)


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot be passed to a program")
    return text


def _tcp_rule(text: str) -> str:
    host, colon, port = text.rpartition(":")
    low, _, high = port.partition("-")
    ports = [low, high or low]
    if not colon or not host or not (port == "*" or all(re.fullmatch(r"[0-9]{1,5}", one) for one in ports)):
        raise ValueError("a rule is host:port, with a port, a range as 1-1023, or *")
    if port != "*" and not int(ports[0]) <= int(ports[1]) <= 65_535:
        raise ValueError("ports are out of order or above 65535")
    bare = host.removeprefix("[").removesuffix("]")
    if "/" in bare or ":" in bare:
        _network(bare)
    return text


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text} is neither a name nor a network") from None
    return text


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as exc:
        raise ValueError(f"{text[:100]!r} is not a network such as 10.0.0.0/8 ({exc})") from None


def _number_as_text(value: object) -> object:
    """Accept numbers: `cpu: 2` and `cpu: 0.5` are common, but Kubernetes wants text."""
    return f"{value}" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _quantity(text: str) -> str:
    if not _QUANTITY.fullmatch(text) or len(text) > 32:
        raise ValueError(f"{text[:100]!r} is not an amount such as 2, 500m or 10Gi")
    return text


def amount(quantity: str) -> Decimal:
    """Return the number of a Kubernetes quantity.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    matched = _QUANTITY.fullmatch(quantity)
    assert matched, quantity
    number, suffix = Decimal(matched[1]), matched[2] or ""
    return number * (_SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(f"1{suffix}"))


def _one_of_each(what: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        if double := next((value for at, value in enumerate(values) if value in values[:at]), None):
            raise ValueError(f"{what} {double!r} stands here twice")
        return values

    return check


Seconds = Annotated[float, Field(ge=0, le=86_400 * 365)]
Text = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
EnvPattern = Annotated[str, Field(pattern=r"^[A-Za-z_*?][A-Za-z0-9_*?]*$")]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00]*$")]
PathGlob = Annotated[str, Field(pattern=r"^[/*][^\x00]*$")]
Account = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")]
TcpRule = Annotated[str, AfterValidator(_tcp_rule)]

Pattern = Annotated[str, _of_form(r"[^\s\x00-\x1f]+", "a name, or a pattern with * and ?", at_most=256)]
Image = Annotated[
    str,
    _of_form(
        r"[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]+)?(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*"
        r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]{32,})?",
        "an image such as registry.example.com/team/image:tag",
        at_most=512,
    ),
]
ObjectName = Annotated[
    str,
    _of_form(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", "the name of a Kubernetes object", at_most=253),
]
StorageName = Annotated[
    str, _of_form(r"[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?", "lower-case letters, digits and -, at most 31")
]
LabelKey = Annotated[
    str,
    _of_form(
        r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
        "the key of a Kubernetes label",
        at_most=317,
    ),
]
LabelValue = Annotated[
    str,
    _of_form(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", "the value of a Kubernetes label"),
]
ResourceName = Annotated[
    str,
    _of_form(
        r"cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMG]i"
        r"|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
        "a resource: cpu, memory, ephemeral-storage, or an extended one such as nvidia.com/gpu",
    ),
]
Quantity = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_quantity)]
Capability = Annotated[str, _of_form(r"ALL|(?!CAP_)[A-Z][A-Z_]+", "a capability such as NET_BIND_SERVICE")]
MountPath = Annotated[
    str,
    _of_form(
        r"(?:~|~/[^\x00:]+|/[^\x00:]+)", "an absolute path, or one in the home as ~/data, without a colon"
    ),
]
SubPath = Annotated[
    str,
    _of_form(r"(?!/)(?!(?:.*/)?\.\.(?:/|$))[^\x00]+", "a path inside the volume, without leading / and .."),
]
Cidr = Annotated[str, AfterValidator(_cidr)]
SeccompProfile = Annotated[
    str,
    _of_form(
        r"RuntimeDefault|Unconfined|localhost/[^\x00]+", "RuntimeDefault, Unconfined or localhost/<file>"
    ),
]
AccessModes = Annotated[
    tuple[
        Annotated[
            str,
            _of_form(
                "ReadWriteOnce|ReadWriteMany|ReadOnlyMany|ReadWriteOncePod",
                "ReadWriteOnce, ReadWriteMany, ReadOnlyMany or ReadWriteOncePod",
            ),
        ],
        ...,
    ],
    Field(min_length=1),
    AfterValidator(_one_of_each("access mode")),
]
