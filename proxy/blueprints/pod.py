"""Parts of a blueprint that only a cluster implements: the pod around the workspace's container.

Names follow Kubernetes where it has one for the same thing. `proxy.workspaces.kubernetes.manifest` turns them
into objects; the local backend ignores them, see docs/blueprints.md.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from proxy.blueprints.values import (
    AccessModes,
    Capability,
    Cidr,
    LabelKey,
    LabelValue,
    MountPath,
    ObjectName,
    Part,
    Quantity,
    ResourceName,
    SeccompProfile,
    SubPath,
    amount,
    misfit,
)

Id = Annotated[int, Field(ge=0, lt=2**31)]


class Resources(Part):
    """Requests for the scheduler, and limits that the kernel enforces."""

    requests: Mapping[ResourceName, Quantity] = {}
    limits: Mapping[ResourceName, Quantity] = {}
    """An extended resource such as nvidia.com/gpu is given here; it is requested in the same amount."""

    @model_validator(mode="after")
    def _requests_fit(self) -> "Resources":
        for name, quantity in self.requests.items():
            limit = self.limits.get(name)
            if limit is not None and amount(quantity) > amount(limit):
                raise misfit(("requests", name), f"more than the {limit} of limits.{name}")
            if "/" in name and limit is None:
                raise misfit(("requests", name), "an extended resource is given in limits")
        return self


class Storage(Part):
    """One volume and its mount path.

    `home`: a claim of this workspace alone, mounted as the account's home; kept when the workspace is
    deleted, unless purged. `shared`: one claim for all workspaces of one user (or of one blueprint), kept
    likewise. `existing`: a claim that the operator made. `empty`: scratch space on the node's disk, and
    `memory`: in its memory; both are gone when the workspace stops.
    """

    kind: Literal["home", "shared", "existing", "empty", "memory"]
    path: MountPath = ""
    """Absolute, or `~` and `~/…` for the account's home; a storage of kind home is mounted as `~`."""
    size: Quantity | None = None
    """Size of a new claim; None takes the installation's. For empty and memory: the limit."""
    storage_class: ObjectName | None = None
    """None takes the cluster's default."""
    access_modes: AccessModes | None = None
    """None: ReadWriteOnce for home, ReadWriteMany for shared."""
    scope: Literal["user", "blueprint"] = "user"
    """Workspaces that use one shared claim: those of one user, or all of this blueprint."""
    claim: ObjectName | None = None
    """Name of the claim, for existing."""
    sub_path: SubPath | None = None
    """Directory inside the volume that is mounted instead of its root."""
    read_only: bool = False

    @model_validator(mode="after")
    def _fields_of_its_kind(self) -> "Storage":
        claimed = self.kind in ("home", "shared")
        misplaced = {
            "storage_class": self.storage_class is not None and not claimed,
            "access_modes": self.access_modes is not None and not claimed,
            "scope": "scope" in self.model_fields_set and self.kind != "shared",
            "claim": self.claim is not None and self.kind != "existing",
            "sub_path": self.sub_path is not None and self.kind not in ("shared", "existing"),
            "size": self.size is not None and self.kind == "existing",
            "path": bool(self.path) and self.kind == "home",
            "read_only": self.read_only and self.kind not in {"existing", "shared"},
        }
        if wrong := next((field for field, is_wrong in misplaced.items() if is_wrong), None):
            raise misfit((wrong,), f"a storage of kind {self.kind} has no {wrong}")
        if self.kind == "existing" and self.claim is None:
            raise ValueError("a storage of kind existing needs the name of its claim")
        if self.kind != "home" and not self.path:
            raise ValueError(f"a storage of kind {self.kind} needs a path")
        return self

    @property
    def mount_path(self) -> str:
        """Return the path inside the container; the home of a storage of kind home."""
        return self.path or "~"

    @property
    def is_home(self) -> bool:
        """Return whether the account's home is on it."""
        return self.mount_path == "~"

    @property
    def claim_access_modes(self) -> tuple[str, ...]:
        """Access modes of a new claim, with the defaults."""
        return self.access_modes or (("ReadWriteOnce",) if self.kind == "home" else ("ReadWriteMany",))


class Port(Part):
    """A port that may be reached; written `443`, `"443"` or `"53/udp"`."""

    port: Annotated[int, Field(ge=1, le=65_535)]
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"

    @model_validator(mode="before")
    @classmethod
    def _from_one_word(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"port": value}
        if isinstance(value, str):
            number, _, protocol = value.partition("/")
            if not number.isascii() or not number.isdecimal() or len(number) > 5:
                raise ValueError(f"{value[:100]!r} is not a port such as 443 or 53/udp")
            return {"port": int(number), "protocol": protocol.upper() or "TCP"}
        return value


class EgressCidr(Part):
    """Addresses that may be reached from the workspace under any network policy."""

    cidr: Cidr
    excluded: tuple[Cidr, ...] = ()
    """Parts of `cidr` that may not be reached."""
    ports: tuple[Port, ...] = ()
    """Empty: every port."""


class EgressPods(Part):
    """Pods that may be reached from the workspace; both selectors must match."""

    pods: Mapping[LabelKey, LabelValue] = {}
    """Empty: every pod of the namespaces."""
    namespaces: Mapping[LabelKey, LabelValue] | None = None
    """None: the workspace's own namespace; empty: every namespace."""
    ports: tuple[Port, ...] = ()
    """Empty: every port."""


class Network(Part):
    """Network access from and to the workspace, enforced by the cluster's network plugin.

    The proxies always reach shelld, and no other pod does; DNS is always reachable.
    """

    policy: Literal["isolated", "user", "blueprint", "organization", "open"] = "open"
    """`isolated`: no other pod. `user`, `blueprint`: workspaces of the same user, or of the same blueprint,
    reach each other. `organization`: all workspaces do. `open`: the workspace reaches everything, and is
    reached as with isolated.
    """
    egress_cidrs: tuple[EgressCidr, ...] = ()
    egress_pods: tuple[EgressPods, ...] = ()


class Security(Part):
    """The security context of the workspace's container."""

    run_as_user: Id | None = None
    """None: shelld runs as root and gives every program its account. A number: shelld and all programs run as
    that user, which needs no privilege.
    """
    run_as_group: Id | None = None
    """None: the same number as `run_as_user`."""
    fs_group: Id | None = None
    """Group of the volumes; None: `run_as_group` if there is one."""
    drop_capabilities: tuple[Capability, ...] = ()
    add_capabilities: tuple[Capability, ...] = ()
    allow_privilege_escalation: bool | None = None
    """Whether setuid programs gain privileges; None: as `sudo` says."""
    read_only_root: bool = False
    seccomp_profile: SeccompProfile = "RuntimeDefault"

    @model_validator(mode="after")
    def _consistent(self) -> "Security":
        if self.run_as_group is not None and self.run_as_user is None:
            raise misfit(("run_as_group",), "this needs run_as_user")
        return self

    @property
    def is_root(self) -> bool:
        """Return whether shelld runs as root."""
        return not self.run_as_user


class Toleration(Part):
    """A taint that the workspace tolerates."""

    key: LabelKey | None = None
    """None, with Exists: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds that a NoExecute taint is tolerated; None: for ever."""

    @model_validator(mode="after")
    def _consistent(self) -> "Toleration":
        if self.operator == "Exists" and self.value:
            raise misfit(("value",), "with operator Exists there is no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("a toleration without key needs operator Exists")
        if self.seconds is not None and self.effect != "NoExecute":
            raise misfit(("seconds",), "this needs effect NoExecute")
        return self


class NodePlacement(Part):
    """Rules for the node that the workspace runs on."""

    selector: Mapping[LabelKey, LabelValue] = {}
    tolerations: tuple[Toleration, ...] = ()
    priority_class: ObjectName | None = None
    runtime_class: ObjectName | None = None
