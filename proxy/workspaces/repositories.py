"""Blueprints of repositories: `repo=owner/name`, whose `.fairlead.yaml` extends an operator's blueprint."""

import asyncio
import shlex
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from proxy.aio import TaskOwner
from proxy.blueprints import repository
from proxy.blueprints.expressions import Facts
from proxy.blueprints.reading import BlueprintSet
from proxy.blueprints.resolve import find, resolve
from proxy.blueprints.schema import Blueprint, InitScript
from proxy.errors.blueprints import BlueprintNotFound, RepositoryUnreachable
from proxy.errors.programs import Refused
from proxy.model import User
from proxy.settings.blueprints import RepositorySettings
from proxy.userstring import UserString, workspace_name

FILE = ".fairlead.yaml"
CLONE_SCRIPT = f"{repository.RESERVED_SCRIPT}clone"
"""Name of the script that clones; a blueprint with a script of this name clones in its own way."""

MAX_KEPT = 1_000

_log = structlog.get_logger("blueprints")
_Key = tuple[str, str, str, bool]


class RepositoryReader(Protocol):
    """A reader of files in repositories; see `blueprints.forges`."""

    @property
    def providers(self) -> Sequence[str]:
        """Return the names of the providers that have repositories."""

    def clone_url(self, provider: str, repo: str) -> str:
        """Return the address for `git clone`."""

    async def read(self, provider: str, repo: str, ref: str, path: str, *, private: bool) -> bytes | None:
        """Read one file; None if it is missing. Raises: BlueprintNotFound, RepositoryUnreachable."""


class Repositories:
    """Files of repositories with a cache, because every channel of a login needs them."""

    def __init__(
        self,
        settings: RepositorySettings,
        files: RepositoryReader,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._files = files
        self._clock = clock
        self._owner = TaskOwner("repositories")
        self._kept: OrderedDict[_Key, tuple[float, bytes | None]] = OrderedDict()
        self._reading: dict[_Key, asyncio.Task[bytes | None]] = {}

    @property
    def are_served(self) -> bool:
        """Return whether any provider has repositories."""
        return bool(self._settings.base)

    def key(self) -> str:
        """Return the key of the blueprint in a workspace's name; it is independent of the file's contents."""
        return self._settings.base

    async def blueprint(
        self, blueprints: BlueprintSet, user: User, origin: UserString, workspace: str = ""
    ) -> Blueprint:
        """Return the blueprint of a repository's workspace for one user; `workspace` as for `resolve`.

        Raises: Refused, BlueprintNotFound, BlueprintInvalid, RepositoryUnreachable.
        """
        provider = self._provider(user)
        data = await self._read((provider, origin.repo, origin.ref, _is_theirs(user, origin.repo)))
        if data is None:
            blueprint = self._without_file(blueprints, user, origin, workspace)
        else:
            document = repository.read_repository_file(data, f"{origin.repo}/{FILE}")
            name = repository.template_of(document, self._settings)
            definition = find(blueprints, name, user, abstract_too=True)
            workspace = workspace or workspace_name(origin, self.key())
            facts = Facts(user, workspace, name, origin, blueprints.metadata)
            blueprint = repository.lay_over(definition, document, facts, self._settings)
        return with_clone(blueprint, origin, self._files.clone_url(provider, origin.repo))

    async def close(self) -> None:
        """Cancel all reads."""
        await self._owner.close()

    def _provider(self, user: User) -> str:
        providers = self._files.providers
        for name in (user.provider, self._settings.provider):
            if name in providers:
                return name
        raise Refused(
            "workspaces of a repository are for people who came in by GitHub or GitLab; "
            f"log in as {user.name} without repo="
        )

    def _without_file(
        self, blueprints: BlueprintSet, user: User, origin: UserString, workspace: str
    ) -> Blueprint:
        if not self._settings.default:
            at = f" at {origin.ref}" if origin.ref else ""
            raise BlueprintNotFound(
                f"repository {origin.repo} has no {FILE}{at}; add one, or log in without repo="
            )
        return resolve(blueprints, self._settings.default, user, origin, workspace)

    async def _read(self, key: _Key) -> bytes | None:
        """Return the file with at most one read at a time; an older copy is used during an outage."""
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept[0] < self._settings.fresh_s:
            return kept[1]
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = self._owner.spawn(self._fetch(key), name=key[1])
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        try:
            return await asyncio.shield(task)
        except RepositoryUnreachable as exc:
            if kept is None:
                raise
            _log.warning("file of a repository not refreshed, the last one serves", repo=key[1], why=str(exc))
            return kept[1]

    async def _fetch(self, key: _Key) -> bytes | None:
        provider, repo, ref, private = key
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                data = await self._files.read(provider, repo, ref, FILE, private=private)
        except TimeoutError:
            reason = f"{provider}: {repo}/{FILE} not read within {self._settings.timeout_s:g} s"
            raise RepositoryUnreachable(
                reason, user_message=f"{provider} does not answer at the moment"
            ) from None
        self._kept[key] = (self._clock(), data)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return data


def with_clone(blueprint: Blueprint, origin: UserString, url: str) -> Blueprint:
    """Add variables that name the repository, and a script that clones it once into the home. Pure."""
    env = {**blueprint.env, "FAIRLEAD_REPO": origin.repo, "FAIRLEAD_REF": origin.ref}
    scripts = blueprint.init
    if CLONE_SCRIPT not in {script.name for script in scripts}:
        # First, so that the scripts of the repository's file find its contents.
        scripts = (InitScript(name=CLONE_SCRIPT, script=_clone_script(origin, url)), *scripts)
    return blueprint.model_copy(update={"env": env, "init": scripts})


def _clone_script(origin: UserString, url: str) -> str:
    words = {"url": url, "ref": origin.ref, "name": origin.repo.rpartition("/")[2]}
    given = "".join(f"{name}={shlex.quote(word)}\n" for name, word in words.items())
    return f"""#!/bin/sh
{given}
cd || exit 1
[ -e "$name" ] && exit 0
command -v git >/dev/null || {{ echo "there is no git in this image: $url is not cloned" >&2; exit 1; }}
export GIT_TERMINAL_PROMPT=0
git clone --quiet "$url" "$name" || exit 1
[ -z "$ref" ] || git -C "$name" checkout --quiet "$ref"
"""


def _is_theirs(user: User, repo: str) -> bool:
    """Return whether the owner of a repository is an organisation of which the user is a member."""
    owner = repo.partition("/")[0].lower()
    return any(group.lower().strip("/").partition("/")[0] == owner for group in user.groups)
