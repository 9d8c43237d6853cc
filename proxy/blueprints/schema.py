"""What a blueprint may contain, read strictly from YAML: an error names file, line and path.

    name: dev                        # default: the file's name
    description: a shell of this machine
    env: {EDITOR: vim}
    accept_env: [GIT_*]              # besides LANG, LC_*, TERM, COLORTERM and FAIRLEAD_*
    shell: /bin/zsh                  # default: the account's
    init:
      - {name: tools, script: "make tools", when: once}      # once a home, or every start
    forward:
      tcp: ["localhost:*", "*.example.com:443", "10.0.0.0/8:1-1023"]
      unix: ["/run/docker.sock"]
      listen_tcp: ["localhost:1024-65535"]
      listen_unix: ["/tmp/*"]
    splash: Welcome to dev.
    accounts: [postgres]             # may be asked for with `user=`, besides the workspace's own
    idle_stop_s: 3600                # 0: never
    limits: {programs: 512, connections: 4096, listeners: 64}

What a value does is shelld's business; that it can be one is checked here, so that a mistake is
found when it is written and not when somebody logs in.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.functional_validators import AfterValidator
from pydantic_core import to_json

from proxy.blueprints.document import Document, Location, read_document
from proxy.errors import BlueprintInvalid

DEFAULT_ACCEPT_ENV = ("LANG", "LC_*", "TERM", "COLORTERM", "FAIRLEAD_*")
"""Variables that a client may set in every workspace."""

MAX_FILE_BYTES = 1024 * 1024


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
        try:
            ipaddress.ip_network(bare, strict=False)
        except ValueError:
            raise ValueError(f"{bare} is neither a name nor a network") from None
    return text


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot be passed to a program")
    return text


Text = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
EnvPattern = Annotated[str, Field(pattern=r"^[A-Za-z_*?][A-Za-z0-9_*?]*$")]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00]*$")]
PathGlob = Annotated[str, Field(pattern=r"^[/*][^\x00]*$")]
Account = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")]
TcpRule = Annotated[str, AfterValidator(_tcp_rule)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InitScript(_Part):
    """A script that runs as the workspace's own account before the first program."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """Marks a `once` script as done in this home; a new name runs it again."""
    script: Text
    when: Literal["once", "every"] = "once"


class Forward(_Part):
    """What may be dialled from the workspace, and bound in it. An empty list permits nothing."""

    tcp: tuple[TcpRule, ...] = ("*:*",)
    unix: tuple[PathGlob, ...] = ("*",)
    listen_tcp: tuple[TcpRule, ...] = ("localhost:*",)
    listen_unix: tuple[PathGlob, ...] = ("*",)


class Limits(_Part):
    """Ceilings of one workspace, so that a runaway client gets an answer."""

    programs: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 4_096
    listeners: Annotated[int, Field(ge=1, le=1_000_000)] = 64


class Blueprint(_Part):
    """One kind of workspace."""

    name: Name
    description: str = ""
    env: Mapping[EnvName, Text] = {}
    accept_env: tuple[EnvPattern, ...] = ()
    """Patterns besides DEFAULT_ACCEPT_ENV."""
    shell: AbsolutePath | None = None
    init: tuple[InitScript, ...] = ()
    forward: Forward = Forward()
    splash: str = ""
    """Shown before the first prompt of an interactive session."""
    accounts: tuple[Account, ...] = ()
    """OS accounts that `user=` may ask for besides the workspace's own."""
    idle_stop_s: Annotated[float, Field(ge=0, le=86_400 * 365)] | None = None
    """Seconds; 0 never stops; None takes the installation's setting."""
    limits: Limits = Limits()

    @property
    def all_accept_env(self) -> tuple[str, ...]:
        return (*DEFAULT_ACCEPT_ENV, *self.accept_env)


class Problem(NamedTuple):
    """One thing wrong in one file."""

    where: str
    """`file:line: path`, the path left out for the whole file."""
    reason: str


def load_blueprint(file: Path) -> Blueprint:
    """Read one file.

    Raises: BlueprintInvalid with its first problem; the rest is named in the reason.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise BlueprintInvalid(file.name, exc.strerror or "cannot be read") from None
    if len(data) > MAX_FILE_BYTES:
        raise BlueprintInvalid(file.name, f"larger than {MAX_FILE_BYTES} bytes")
    return parse_blueprint(data, file_name=file.name, default_name=file.stem)


def parse_blueprint(data: bytes, *, file_name: str, default_name: str) -> Blueprint:
    """Read the content of one file; pure.

    Raises: BlueprintInvalid.
    """
    document = read_document(data, file_name)
    content = {"name": default_name, **document.content}
    try:
        # As JSON, because strictness about Python values would refuse every list for a tuple.
        blueprint = Blueprint.model_validate_json(to_json(content))
    except ValidationError as exc:
        problems = [_problem(error, document) for error in exc.errors(include_url=False)]
        raise _invalid(problems) from None
    if double := _first_double([script.name for script in blueprint.init]):
        where = document.where(("init", double, "name"))
        raise BlueprintInvalid(where, "another script has that name")
    return blueprint


def _problem(error: Mapping[str, object], document: Document) -> Problem:
    loc: Location = tuple(part for part in error["loc"] if part != "[key]")  # type: ignore[attr-defined]
    reasons = {
        "extra_forbidden": "there is no such field",
        "missing": "this field is missing",
        "string_type": "text is expected; put it in quotes",
        "string_pattern_mismatch": f"{error['input']!r} is not of the form that is expected here",
    }
    reason = reasons.get(str(error["type"])) or str(error["msg"]).removeprefix("Value error, ")
    return Problem(document.where(loc), reason)


def _invalid(problems: list[Problem]) -> BlueprintInvalid:
    first, *rest = problems
    also = "".join(f"; {where}: {reason}" for where, reason in rest)
    return BlueprintInvalid(first.where, first.reason + also)


def _first_double(names: list[str]) -> int:
    """Index of the first name that stood before, else 0, which cannot be one."""
    return next((at for at, name in enumerate(names) if name in names[:at]), 0)
