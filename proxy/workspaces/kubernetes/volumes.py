"""Volumes of a workspace: shelld, its trust, its settings, the home, and those of the blueprint. Pure.

Claims are objects of their own rather than templates of the StatefulSet, so that what is kept and what is
purged is ours to say in every release of Kubernetes. A claim is made once and never changed after.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proxy.blueprints.pod import Storage
from proxy.blueprints.schema import Blueprint
from proxy.model import User
from proxy.settings.kubernetes import KubernetesSettings
from proxy.trust.manager import CERTIFICATE_FILE, CLIENT_CA_FILE, KEY_FILE, TOKEN_KEY_FILE
from proxy.workspaces.kubernetes import bundle, labels
from proxy.workspaces.kubernetes.objects import Object

RUNTIME_ROOT = "/var/run"
"""Where shelld keeps its sockets, as root."""

RUNTIME_MOUNTED = "/run/fairlead"
"""Where it keeps them when it could not write to the other."""

_KEPT = f"{labels.DOMAIN}/storage"


@dataclass(frozen=True, slots=True)
class Place:
    """The user and the paths of a workspace, as far as volumes depend on them."""

    workspace: str
    namespace: str
    user: User
    home: str
    blueprint: Blueprint
    labels: Mapping[str, str]
    certificate: str = ""
    """The Secret into which the issuer puts certificate and key; empty when ours holds them."""
    older_claims: Mapping[str, str] = field(default_factory=dict)
    """By storage, the claims that an older release made under a name of its own, and that stay in use."""


def needs_runtime(blueprint: Blueprint) -> bool:
    """Return whether the image's own directory for sockets cannot be written to."""
    return not blueprint.security.is_root or blueprint.security.read_only_root


def volumes(place: Place) -> list[Object]:
    """Give the volumes of the pod."""
    found: list[Object] = [
        {"name": "fairlead-bundle", "emptyDir": {}},
        {"name": "fairlead-trust", **_trust(place)},
        {"name": "fairlead-config", "configMap": {"name": place.workspace, "defaultMode": 0o444}},
    ]
    found += [{"name": name, "emptyDir": dict(source)} for name, _, source in _scratch(place)]
    found += [
        {"name": _volume(name), **_source(place, name, one)} for name, one in place.blueprint.storages.items()
    ]
    return found


def mounts(place: Place) -> list[Object]:
    """Give the mounts of the main container."""
    found: list[Object] = [
        {"name": "fairlead-bundle", "mountPath": bundle.POD_ROOT, "readOnly": True},
        {"name": "fairlead-trust", "mountPath": bundle.TRUST_DIRECTORY, "readOnly": True},
        {"name": "fairlead-config", "mountPath": bundle.CONFIG_FILE.rpartition("/")[0], "readOnly": True},
    ]
    found += [{"name": name, "mountPath": path} for name, path, _ in _scratch(place)]
    for name, storage in place.blueprint.storages.items():
        mount: Object = {"name": _volume(name), "mountPath": path_of(storage, place.home)}
        if storage.sub_path:
            mount["subPath"] = storage.sub_path
        if storage.read_only:
            mount["readOnly"] = True
        found.append(mount)
    return found


def claims(place: Place, settings: KubernetesSettings) -> list[Object]:
    """Give the claims that are ours to make."""
    return [
        _claim(place, name, storage, settings)
        for name, storage in place.blueprint.storages.items()
        if storage.kind in {"home", "shared"}
    ]


def path_of(storage: Storage, home: str) -> str:
    """Return the path where a storage is mounted, with the home filled in."""
    path = storage.mount_path
    return home + path[1:] if path.startswith("~") else path


def _trust(place: Place) -> Object:
    """Return the volume of the four files of `bundle.TRUST_DIRECTORY`, from one Secret or two."""
    mode = 0o400 if place.blueprint.security.is_root else 0o440
    if not place.certificate:
        return {"secret": {"secretName": place.workspace, "defaultMode": mode}}
    files = {
        place.workspace: (CLIENT_CA_FILE, TOKEN_KEY_FILE),
        place.certificate: (CERTIFICATE_FILE, KEY_FILE),
    }
    sources = [
        {"secret": {"name": secret, "items": [{"key": name, "path": name} for name in names]}}
        for secret, names in files.items()
    ]
    return {"projected": {"sources": sources, "defaultMode": mode}}


def _scratch(place: Place) -> Iterator[tuple[str, str, Object]]:
    """Yield directories that must be writable without a requested storage: name, path, volume."""
    blueprint = place.blueprint
    taken = {path_of(storage, place.home).rstrip("/") for storage in blueprint.storages.values()}
    if not blueprint.home_storage:
        yield "fairlead-home", place.home, {}
    if needs_runtime(blueprint):
        yield "fairlead-run", RUNTIME_MOUNTED, {"medium": "Memory", "sizeLimit": "16Mi"}
    if blueprint.security.read_only_root and "/tmp" not in taken:  # noqa: S108 - of the workspace
        yield "fairlead-tmp", "/tmp", {}  # noqa: S108


def _volume(storage: str) -> str:
    """Name the volume of a storage such that it is never one of ours."""
    return f"storage-{storage}"


def _source(place: Place, name: str, storage: Storage) -> Object:
    if storage.kind in {"empty", "memory"}:
        source: Object = {"medium": "Memory"} if storage.kind == "memory" else {}
        return {"emptyDir": source | ({"sizeLimit": storage.size} if storage.size else {})}
    claim: Object = {"claimName": _claim_name(place, name, storage)}
    if storage.read_only:
        claim["readOnly"] = True
    return {"persistentVolumeClaim": claim}


def _claim_name(place: Place, name: str, storage: Storage) -> str:
    if storage.kind == "existing":
        assert storage.claim
        return storage.claim
    if storage.kind == "home":
        return f"{place.workspace}-{name}"
    if name in place.older_claims:
        return place.older_claims[name]
    if storage.scope == "user":
        return f"shared-user-{labels.object_name(place.user.name, place.user.id, name)}-{name}"
    return f"shared-blueprint-{labels.object_name(place.blueprint.name, name)}-{name}"


def older_claim_name(place: Place, name: str, storage: Storage) -> str:
    """Return the name that older releases gave to the claim of a shared storage."""
    owner = place.user.name if storage.scope == "user" else place.blueprint.name
    return f"shared-{storage.scope}-{labels.older_object_name(owner)}-{name}"


def _claim(place: Place, name: str, storage: Storage, settings: KubernetesSettings) -> Object:
    own = dict(place.labels) | {_KEPT: storage.kind}
    annotations = labels.owner_annotations(place.user)
    if storage.kind == "shared":  # it outlives every workspace that uses it, and may be of several people
        del own[labels.WORKSPACE], own["app.kubernetes.io/instance"]
        if storage.scope == "blueprint":
            del own[labels.USER], own[labels.OWNER]
            annotations = {}
    spec: Object = {
        "accessModes": list(storage.claim_access_modes),
        "resources": {"requests": {"storage": storage.size or settings.home_size}},
    }
    if storage_class := storage.storage_class or settings.storage_class:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": _claim_name(place, name, storage),
            "namespace": place.namespace,
            "labels": own,
            "annotations": annotations,
        },
        "spec": spec,
    }
