"""The schema of blueprints, read strictly from YAML: an error names file, line and path.

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
    record: [shell, exec, sftp, forward]                     # besides what the settings want recorded
    apps: {lab: {title: JupyterLab, listen: {port: 8888}, share: owner}}
    image: registry.example.com/dev:1                        # this and the rest: of a cluster
    resources: {requests: {cpu: 500m}, limits: {memory: 4Gi, nvidia.com/gpu: 1}}
    storages: {home: {kind: home, size: 20Gi}}
    network: {policy: isolated, egress_cidrs: [{cidr: 10.1.0.0/16, ports: [443]}]}
    security: {run_as_user: 1000, drop_capabilities: [ALL]}
    node: {selector: {pool: dev}}

shelld or the cluster (see `pod`) give a value its effect. Its form is checked here, so that a mistake is
found when it is written and not when a user logs in. docs/blueprints.md has every field with its default.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from proxy.blueprints.apps import App, Slug
from proxy.blueprints.pod import Network, NodePlacement, Resources, Security, Storage
from proxy.blueprints.values import (
    AbsolutePath,
    Account,
    EnvName,
    EnvPattern,
    Image,
    Name,
    ObjectName,
    Part,
    PathGlob,
    Pattern,
    Seconds,
    StorageName,
    TcpRule,
    Text,
    misfit,
)
from proxy.userstring import LOBBY

DEFAULT_ACCEPT_ENV = ("LANG", "LC_*", "TERM", "COLORTERM", "FAIRLEAD_*")
"""Variables that a client may set in every workspace."""


class InitScript(Part):
    """A script that runs as the workspace's own account before the first program."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """Marks a `once` script as done in this home; a new name runs it again."""
    script: Text
    when: Literal["once", "every"] = "once"
    required: bool = False
    """Whether the workspace is not ready, and refuses every login, unless the script succeeds."""


class Forward(Part):
    """Targets that may be dialled from the workspace, and addresses to bind in it.

    An empty list permits none.
    """

    tcp: tuple[TcpRule, ...] = ("*:*",)
    unix: tuple[PathGlob, ...] = ("*",)
    listen_tcp: tuple[TcpRule, ...] = ("localhost:*",)
    listen_unix: tuple[PathGlob, ...] = ("*",)


class Limits(Part):
    """Limits of one workspace; a client that reaches one gets an error."""

    programs: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 4_096
    listeners: Annotated[int, Field(ge=1, le=1_000_000)] = 64


class Access(Part):
    """The users of a blueprint: those that one entry matches; without entries, all users."""

    users: tuple[Pattern, ...] = ()
    groups: tuple[Pattern, ...] = ()
    """Names of groups at the provider; without regard to case."""


class Quota(Part):
    """Limits on the number of workspaces of one blueprint, for all users together; None: no limit."""

    total: Annotated[int, Field(ge=0)] | None = None
    """Existing workspaces, running or not."""
    running: Annotated[int, Field(ge=0)] | None = None


class Blueprint(Part):
    """One kind of workspace, without inheritance and expressions."""

    name: Name
    description: str = ""
    template: Name | None = None
    """The blueprint that this one inherited from."""
    abstract: bool = False
    """True: only a template, never used for a workspace. Not inherited itself."""
    access: Access = Access()
    quota: Quota = Quota()

    env: Mapping[EnvName, Text] = {}
    accept_env: tuple[EnvPattern, ...] = ()
    """Patterns besides DEFAULT_ACCEPT_ENV."""
    shell: AbsolutePath | None = None
    init: tuple[InitScript, ...] = ()
    user_rc: bool = True
    """Whether `~/.ssh/rc` runs before a shell or command, as `PermitUserRC` of sshd_config(5) says."""
    forward: Forward = Forward()
    splash: str = ""
    """DisplayText before the first prompt of an interactive session."""
    account: Account | None = None
    """The workspace's own OS account, where the backend can choose one; None: the user's name."""
    home: AbsolutePath | None = None
    """That account's home; None: `/home/<account>`, or `/root` for root."""
    accounts: tuple[Account, ...] = ()
    """OS accounts that `user=` may ask for besides the workspace's own."""
    sudo: bool = False
    """Whether the account may become root without a password."""
    idle_stop_s: Seconds | None = None
    """Seconds; 0 never stops; None takes the installation's setting."""
    lifetime_s: Seconds | None = None
    """Seconds from a start to the stop, even while in use; 0: never; None: the installation's setting."""
    stop_hold_s: Seconds | None = None
    """Seconds for which a login does not undo a stop by the user; None: the installation's setting."""
    limits: Limits = Limits()
    record: tuple[Literal["shell", "exec", "sftp", "forward"], ...] = ()
    """Kinds recorded besides those of the installation's rules, which no blueprint can remove."""
    apps: Mapping[Slug, App] = {}
    """Web apps by slug, each on an origin of its own. No expressions: the same for all users."""

    image: Image | None = None
    """None takes the backend's default image."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """None leaves it to Kubernetes: Always for the tag latest, else IfNotPresent."""
    image_pull_secrets: tuple[ObjectName, ...] = ()
    resources: Resources = Resources()
    storages: Mapping[StorageName, Storage] = {}
    """By name. Without a home storage, the home is scratch space and is lost when the workspace stops."""
    network: Network = Network()
    security: Security = Security()
    service_account: ObjectName | None = None
    """Account whose token is mounted; None: the namespace's default account, and no token."""
    node: NodePlacement = NodePlacement()

    @property
    def all_accept_env(self) -> tuple[str, ...]:
        """Return all patterns, with DEFAULT_ACCEPT_ENV."""
        return (*DEFAULT_ACCEPT_ENV, *self.accept_env)

    @property
    def allow_privilege_escalation(self) -> bool:
        """Return whether setuid programs gain privileges, with the default applied."""
        given = self.security.allow_privilege_escalation
        return self.sudo if given is None else given

    @property
    def home_storage(self) -> str:
        """Name of the storage of the home; empty for none."""
        return next((name for name, storage in self.storages.items() if storage.is_home), "")

    @field_validator("name")
    @classmethod
    def _name_is_no_place(cls, value: str) -> str:
        if value == LOBBY:
            raise ValueError(f"{LOBBY!r} is the place of Fairlead's own commands, and no blueprint")
        return value

    @model_validator(mode="after")
    def _init_names_differ(self) -> "Blueprint":
        names = [script.name for script in self.init]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise misfit(("init", at, "name"), "another script has that name")
        return self

    @model_validator(mode="after")
    def _app_accounts_exist(self) -> "Blueprint":
        for slug, app in self.apps.items():
            if app.account and app.account not in (self.account, *self.accounts):
                raise misfit(("apps", slug, "account"), f"{app.account} is none of `accounts`")
        return self

    @model_validator(mode="after")
    def _app_names_exist(self) -> "Blueprint":
        for slug, app in self.apps.items():
            for field in ("cors", "embed"):
                for at, one in enumerate(getattr(app, field)):
                    if one not in self.apps and not one.startswith("https://"):
                        raise misfit(("apps", slug, field, at), f"this blueprint has no app {one}")
        return self

    @model_validator(mode="after")
    def _paths_differ(self) -> "Blueprint":
        taken: dict[str, str] = {}
        for name, storage in self.storages.items():
            path = storage.mount_path.rstrip("/")
            if other := taken.get(path):
                raise misfit(("storages", name), f"{path or '/'} is the place of storage {other} already")
            taken[path] = name
        return self

    @model_validator(mode="after")
    def _privileges_add_up(self) -> "Blueprint":
        if self.sudo and self.security.allow_privilege_escalation is False:
            reason = "sudo needs it, and sudo is true"
            raise misfit(("security", "allow_privilege_escalation"), reason)
        if not self.security.is_root:
            needs_root = next((field for field in ("sudo", "accounts") if getattr(self, field)), None)
            if needs_root:
                raise misfit((needs_root,), "this needs root, and security.run_as_user is not 0")
        return self
