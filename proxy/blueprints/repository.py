"""Workspace files of repositories: their permitted fields, and how they extend an operator's blueprint. Pure.

Every user who can push to a repository can write its file, so it is not trusted: it has only the fields
below, without `null` and expressions, and each may only add to the blueprint or narrow it. Its scripts run as
the user who asked for the repository, as the rest of its code does.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import to_json

from proxy.blueprints.apps import Icon, Listen, Ready, Slug, Workdir
from proxy.blueprints.document import Document, Location, Node, read_document
from proxy.blueprints.expressions import Facts, evaluate
from proxy.blueprints.inherit import merge
from proxy.blueprints.narrow import path_within, tcp_within
from proxy.blueprints.reading import BlueprintProblems, Definition, build, explain_error
from proxy.blueprints.schema import Blueprint, InitScript
from proxy.blueprints.values import (
    EnvName,
    Image,
    Name,
    Part,
    PathGlob,
    Quantity,
    StorageName,
    TcpRule,
    Text,
    amount,
    misfit,
)
from proxy.errors.blueprints import BlueprintInvalid
from proxy.settings.blueprints import RepositorySettings

MAX_FILE_BYTES = 64 * 1024
RESERVED_SCRIPT = "fairlead-"
"""Prefix of the names of Fairlead's own scripts."""

_PROTECTED_ENV = ("LD_*", "FAIRLEAD_*", "SSH_*", "SUDO_*", "BASH_ENV", "ENV", "IFS", "HOME", "USER",
                  "LOGNAME", "SHELL", "MAIL", "PATH", "PYTHON*", "GIT_SSH*")  # fmt: skip


def _printable(text: str) -> str:
    if strange := next((one for one in text if not one.isprintable() and one not in "\n\t"), None):
        raise ValueError(f"{strange!r} would reach the terminal of each user who logs in")
    return text


def _env_name(name: str) -> str:
    if any(fnmatchcase(name, pattern) for pattern in _PROTECTED_ENV):
        raise ValueError(f"{name} is not for a repository to set")
    return name


def _scratch_path(path: str) -> str:
    if ".." in path.split("/") or not re.fullmatch(r"~/[^\x00:]+|/(mnt|scratch)/[^\x00:]+|/dev/shm", path):
        raise ValueError("a repository may mount at ~/…, /mnt/…, /scratch/… and /dev/shm")
    return path


DisplayText = Annotated[str, Field(max_length=4_096), AfterValidator(_printable)]


class RepositoryForward(Part):
    """Forwards, within those of the blueprint."""

    tcp: tuple[TcpRule, ...] = ()
    unix: tuple[PathGlob, ...] = ()
    listen_tcp: tuple[TcpRule, ...] = ()
    listen_unix: tuple[PathGlob, ...] = ()


class RepositoryStorage(Part):
    """Scratch space, besides that of the blueprint."""

    kind: Literal["empty", "memory"]
    path: Annotated[str, AfterValidator(_scratch_path)]
    size: Quantity


class RepositoryApp(Part):
    """The fields of an app that a repository may set, of a new one or of one that the blueprint has."""

    title: DisplayText = ""
    icon: Icon = ""
    listen: Listen = Listen(port="auto")
    start: Text = ""
    ready: Ready = Ready()
    env: Mapping[Annotated[EnvName, AfterValidator(_env_name)], Text] = {}
    workdir: Workdir = "~"

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, value: Any) -> Any:
        if (at := _null_in(value)) is not None:
            raise misfit(at, "a repository removes nothing, so this cannot be null")
        return value


def _null_in(value: Any) -> tuple[str, ...] | None:
    """Return the place of a null in nested mappings; None for none."""
    if value is None:
        return ()
    if isinstance(value, dict):
        for key, below in value.items():
            if (found := _null_in(below)) is not None:
                return (str(key), *found)
    return None


class RepositoryFile(Part):
    """All fields of a `.fairlead.yaml`; no field takes null."""

    template: Name = ""
    """One of those that the operator offers."""
    description: DisplayText = ""
    splash: DisplayText = ""
    image: Image = ""
    """One that the operator permits."""
    env: Mapping[Annotated[EnvName, AfterValidator(_env_name)], Text] = {}
    init: Annotated[tuple[InitScript, ...], Field(max_length=50)] = ()
    """Run after the scripts of the blueprint, which cannot be replaced."""
    forward: RepositoryForward = RepositoryForward()
    storages: Annotated[Mapping[StorageName, RepositoryStorage], Field(max_length=10)] = {}
    apps: Annotated[Mapping[Slug, RepositoryApp], Field(max_length=20)] = {}


def read_repository_file(data: bytes, file_name: str) -> Document:
    """Parse a repository's file, as far as possible without the blueprint that it extends.

    Raises: BlueprintInvalid marked as the repository's own, so that the user sees the error.
    """
    if len(data) > MAX_FILE_BYTES:
        raise _of_repository(file_name, f"larger than {MAX_FILE_BYTES} bytes")
    try:
        document = read_document(data, file_name)
        _check_fields(document)
    except BlueprintInvalid as exc:
        raise _of_repository(exc.where, exc.reason) from None
    return document


def template_of(document: Document, settings: RepositorySettings) -> str:
    """Return the name of the blueprint that a repository's file extends.

    Raises: BlueprintInvalid for one that is not offered.
    """
    wanted = document.content.get("template", settings.base)
    offered = dict.fromkeys([settings.base, *settings.templates])
    if wanted not in offered:
        reason = f"{wanted!r} is not offered to repositories; there are: {', '.join(offered)}"
        raise _of_repository(document.where(("template",)), reason)
    return str(wanted)


def lay_over(
    definition: Definition, document: Document, facts: Facts, settings: RepositorySettings
) -> Blueprint:
    """Compute a blueprint, and add the contents of the repository's file.

    Raises: BlueprintInvalid for contents that are not permitted.
    """
    own = definition.resolve(facts)
    worked_out = evaluate(definition.document, definition.programs, facts)
    for loc, reason in _violations(
        RepositoryFile.model_validate_json(to_json(document.content)), own, settings
    ):
        raise _of_repository(document.where(loc), reason)
    said = Node(
        {key: node for key, node in document.root.value.items() if key != "template"},
        document.file_name,
        document.root.line,
    )
    own_facts = {
        key: node for key in ("template", "abstract") if (node := worked_out.root.below(key)) is not None
    }
    joined = merge(worked_out.root, said)
    root = Node({**own_facts, **joined.value}, joined.file_name, joined.line)
    try:
        return build(Document(root), own.name)
    except BlueprintInvalid as exc:
        raise _of_repository(exc.where, exc.reason) from None


def _violations(
    file: RepositoryFile, own: Blueprint, settings: RepositorySettings
) -> Sequence[tuple[Location, str]]:
    """Return the fields that change the blueprint instead of extending it, or are not permitted."""
    found: list[tuple[Location, str]] = []
    if file.image and not any(image_matches(file.image, pattern) for pattern in settings.images):
        found.append((("image",), f"{file.image} is not an image that repositories may use"))
    names = {script.name for script in own.init}
    for at, script in enumerate(file.init):
        if script.name in names or script.name.startswith(RESERVED_SCRIPT):
            found.append((("init", at, "name"), "a script of the blueprint has that name"))
    for name, storage in file.storages.items():
        if name in own.storages:
            found.append((("storages", name), "a storage of the blueprint has that name"))
        if amount(storage.size) > amount(settings.storage_size):
            found.append((("storages", name, "size"), f"at most {settings.storage_size} for a repository"))
    reason = "the blueprint's app of that name runs as an account of its own"
    found.extend((("apps", slug), reason) for slug in file.apps if _has_account(own, slug))
    return [*found, *_wider_forwards(file, own)]


def _has_account(own: Blueprint, slug: str) -> bool:
    return slug in own.apps and own.apps[slug].account is not None


def _wider_forwards(file: RepositoryFile, own: Blueprint) -> Sequence[tuple[Location, str]]:
    found: list[tuple[Location, str]] = []
    for field in file.forward.model_fields_set:
        within = tcp_within if field.endswith("tcp") else path_within
        for at, rule in enumerate(getattr(file.forward, field)):
            if not within(rule, getattr(own.forward, field)):
                found.append((("forward", field, at), f"{rule!r} is more than the blueprint permits"))
    return found


def image_matches(image: str, pattern: str) -> bool:
    """Return whether a pattern permits an image; `*` stays within a part of the path, `**` does not."""
    words = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(words.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", pattern))
    return re.fullmatch(expression, image) is not None


def _check_fields(document: Document) -> None:
    """Check that only known fields without null and expressions are used. Raises: BlueprintInvalid."""
    if computed := next(document.root.expressions(), None):
        raise BlueprintInvalid(document.where(computed[0]), "a repository has no expressions")
    for field in document.root.value:
        if field in Blueprint.model_fields and field not in RepositoryFile.model_fields:
            raise BlueprintInvalid(document.where((field,)), "this is not for a repository to set")
    try:
        RepositoryFile.model_validate_json(to_json(document.content))
    except ValidationError as exc:
        raise BlueprintProblems(
            [explain_error(error, document) for error in exc.errors(include_url=False)]
        ) from None


def _of_repository(where: str, reason: str) -> BlueprintInvalid:
    """Return the error for the user, who can change the file."""
    return BlueprintInvalid(where, reason, user_message=f"{where}: {reason}")
