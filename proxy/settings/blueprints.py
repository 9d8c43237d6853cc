"""Settings of blueprints: where they come from, who gets which without asking, and how many workspaces."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from proxy.settings.base import Section

_Count = Annotated[int, Field(ge=0, le=1_000_000)]
_Interval = Annotated[float, Field(ge=1, le=86_400)]


class GitSettings(Section):
    """A Git repository that holds the blueprints; asked by the `git` of this machine."""

    url: str = ""
    """https://, ssh:// or user@host:path; file:// for one of this machine."""
    ref: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][^\s~^:?*\[\\]*$", max_length=250)] = "HEAD"
    """Branch or tag; HEAD is the repository's default branch."""
    directory: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+/?)*$")] = ""
    """Directory of the repository with the YAML files; empty for its root."""
    token_file: Path | None = None
    """Holds the password or access token for https."""
    user: str = "git"
    """User name that goes with the token."""
    ssh_key_file: Path | None = None
    """Private key for ssh."""
    known_hosts_file: Path | None = None
    """Host keys of the ssh server; default those that `ssh` of this account knows."""
    ca_file: Path | None = None
    """Certificates of a private authority, for https."""
    proxy_url: str = ""
    """Forward proxy for https; the environment's is not read."""
    timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 60
    """One refresh, from the first packet to the last file."""
    max_bytes: Annotated[int, Field(ge=64 * 1024)] = 64 * 1024 * 1024
    """Largest file that git may write while it fetches."""

    @model_validator(mode="after")
    def _usable(self) -> "GitSettings":
        if self.url and not re.match(r"(https|ssh|file)://|[\w.-]+@[\w.-]+:[^:]", self.url, re.ASCII):
            raise ValueError("url must be https://…, ssh://…, user@host:path or file://…")
        if self.url.startswith("https://") and "@" in self.url.split("/")[2]:
            raise ValueError("url must not carry credentials: name a file that holds them")
        return self


class ConfigMapSettings(Section):
    """A ConfigMap whose keys are the YAML files."""

    name: str = ""
    namespace: str = ""
    """Default: where the workspaces are."""


class PersonRule(Section):
    """A rule for some users; a rule without users and groups holds for all."""

    users: tuple[str, ...] = ()
    """Patterns of user names."""
    groups: tuple[str, ...] = ()
    """Patterns of groups, as the person's provider names them."""
    default: str | None = None
    """Blueprint of user strings that name none."""
    max_workspaces: _Count | None = None
    """Workspaces of one person, running or not."""
    max_running: _Count | None = None


class RepositorySettings(Section):
    """Workspaces of a repository, `repo=owner/name`, and the limits of its `.fairlead.yaml`."""

    base: str = ""
    """The blueprint that such workspaces have and the file adds to; it may be abstract. Empty: there are
    none."""
    templates: tuple[str, ...] = ()
    """Other blueprints that a file may choose by `template`."""
    default: str = ""
    """The blueprint of repositories without a file. Empty: such a repository is refused."""
    images: tuple[str, ...] = ()
    """Patterns of images that a file may choose; `*` does not match `/`, `**` does. Empty: none."""
    storage_size: Annotated[str, Field(pattern=r"^[0-9]+([kMGT]|[KMGT]i)?$")] = "10Gi"
    """Of one scratch volume that a file asks for, at most."""
    provider: str = ""
    """Asked for the repositories of users whom no GitHub or GitLab vouches for. Empty: they have none."""
    token_files: Mapping[str, Path] = {}
    """By provider: a file with a token that may read contents. It is used only for repositories of an
    organisation that the person is a member of; public ones need none."""
    fresh_s: Annotated[float, Field(ge=1, le=86_400)] = 300
    """A file this young is used without asking."""
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10
    """Until a repository's file is there."""


class BlueprintSettings(Section):
    """All of the above, and the values that expressions may see."""

    source: Literal["directory", "git", "config_map"] = "directory"
    directory: Path | None = None
    """Default `<home>/blueprints`, where the quick start writes `dev`."""
    git: GitSettings = GitSettings()
    config_map: ConfigMapSettings = ConfigMapSettings()
    repository: RepositorySettings = RepositorySettings()
    refresh_s: _Interval = 60
    """A Git repository or ConfigMap is asked this often whether it has changed."""
    default: str = "dev"
    """Used when the user string names none and no rule says otherwise."""
    rules: tuple[PersonRule, ...] = ()
    """Each of default, max_workspaces and max_running is that of the first rule which holds for the person
    and gives one; without any there is no ceiling."""
    metadata: Mapping[str, Any] = {}
    """What expressions see as `metadata`: facts of this installation, such as a region or a registry."""

    @model_validator(mode="after")
    def _source_is_given(self) -> "BlueprintSettings":
        if self.source == "git" and not self.git.url:
            raise ValueError("source git needs git.url")
        if self.source == "config_map" and not self.config_map.name:
            raise ValueError("source config_map needs config_map.name")
        return self
