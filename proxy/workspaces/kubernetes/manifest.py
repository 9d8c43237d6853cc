"""The objects of one workspace, from the request and the settings. Pure.

    StatefulSet <workspace>         one pod or none: start is 1, stop is 0
    Service <workspace>             headless, names the pod
    ConfigMap <workspace>           shelld.json
    Secret <workspace>              certificate and keys, or without the certificate and its key
    Certificate <workspace>.tls     then, for cert-manager, which puts them into a Secret of that name
    NetworkPolicy <workspace>
    PersistentVolumeClaim           one for each storage of kind home or shared

A pod says by an annotation which manifest it was made from. A workspace that starts is made from the
blueprint of today; one that runs is left alone.

Nothing here needs more than Kubernetes 1.20, whose server-side apply wants `protocol` written in every port.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from proxy.blueprints.schema import Blueprint
from proxy.model import User
from proxy.settings.kubernetes import KubernetesSettings
from proxy.settings.trust import TrustSettings
from proxy.trust.authority import server_name
from proxy.trust.certmanager import certificate_manifest, certificate_name
from proxy.userstring import format_user_string
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.kubernetes import bundle, labels, volumes
from proxy.workspaces.kubernetes.network import network_policy_spec
from proxy.workspaces.kubernetes.objects import NETWORK_POLICY, Object
from proxy.workspaces.kubernetes.volumes import Place
from proxy.workspaces.shelldconfig import shelld_config

RUNTIME_MOUNTED = volumes.RUNTIME_MOUNTED
CONTAINER = "workspace"
"""Name of the container that shelld runs in."""

INIT_CONTAINER = "fairlead-bundle"
ROOT_HOME = "/root"
NO_CLAIMS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every object of a workspace, in the order in which they are made."""

    claims: tuple[Object, ...]
    """Made when they are missing; otherwise left as they are."""
    parts: tuple[Object, ...]
    """What the pod needs besides."""
    stateful_set: Object

    @property
    def hash(self) -> str:
        """Tell one manifest from another, as far as the pod notices."""
        return str(self.stateful_set["metadata"]["annotations"][labels.MANIFEST_HASH])

    @property
    def network_policy(self) -> Object:
        """Give the part that keeps others out, and the workspace in."""
        return next(part for part in self.parts if part["kind"] == NETWORK_POLICY.name)

    @property
    def claim_names(self) -> list[str]:
        """Return every claim that the pod mounts, ours or not."""
        return claims_of(self.stateful_set["spec"]["template"]["spec"])

    def __iter__(self) -> Iterator[Object]:
        yield from (*self.claims, *self.parts, self.stateful_set)


def claims_of(pod_spec: Object) -> list[str]:
    """Name the claims that a pod mounts."""
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_spec.get("volumes") or []
        if "persistentVolumeClaim" in volume
    ]


def build(
    request: WorkspaceRequest,
    settings: KubernetesSettings,
    trust: Mapping[str, bytes],
    *,
    now: datetime,
    issuer: TrustSettings | None = None,
    older_claims: Mapping[str, str] = NO_CLAIMS,
    given: bool = False,
) -> Manifest:
    """Describe a workspace that is started `now`; `trust` holds the files of its Secret.

    `issuer` is asked for the certificate, which is then not in `trust`. `older_claims` are as Place has them;
    `given` says that the home was another user's before.
    """
    blueprint = request.blueprint
    place = place_of(request, settings, issuer, older_claims)
    own_labels = place.labels
    mounted = volumes.needs_runtime(blueprint)
    shelld = config_of(request, place.home, mounted=mounted) | ({"take_home": True} if given else {})
    config = json.dumps(shelld, indent=1, sort_keys=True)
    template = _template(place, settings)
    digest = hashlib.sha256((json.dumps(template, sort_keys=True) + config).encode()).hexdigest()[:16]
    template["metadata"]["annotations"] = {labels.MANIFEST_HASH: digest}
    parts = (
        *_certificates(place, issuer),
        _object(place, "v1", "ConfigMap", data={"shelld.json": config}),
        _object(place, "v1", "Secret", type="Opaque", data=encoded(trust)),
        _object(place, "v1", "Service", spec=_service(own_labels)),
        _object(
            place,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            spec=network_policy_spec(blueprint.network, own_labels, settings.proxies),
        ),
    )
    stateful_set = _object(place, "apps/v1", "StatefulSet", spec=_stateful_set(request.name, template))
    stateful_set["metadata"]["annotations"] |= {
        labels.BLUEPRINT: blueprint.name,
        labels.USER_STRING: format_user_string(replace(request.origin, account="")),
        labels.LAST_START: labels.written(now),
        labels.MANIFEST_HASH: digest,
    }
    return Manifest(tuple(volumes.claims(place, settings)), parts, stateful_set)


def place_of(
    request: WorkspaceRequest,
    settings: KubernetesSettings,
    issuer: TrustSettings | None = None,
    older_claims: Mapping[str, str] = NO_CLAIMS,
) -> Place:
    """Return the workspace's user and paths, as far as volumes depend on them."""
    return Place(
        request.name,
        settings.namespace,
        request.user,
        home_of(request.user, request.blueprint),
        request.blueprint,
        labels.workspace_labels(request.name, user=request.user, blueprint=request.blueprint.name),
        certificate_name(request.name) if issuer else "",
        older_claims,
    )


def account_of(user: User, blueprint: Blueprint) -> dict[str, Any]:
    """Describe the workspace's own account to shelld; fields of None come from its passwd."""
    security = blueprint.security
    name = blueprint.account or user.name
    account: dict[str, Any] = {"name": name, "uid": None, "gid": None, "home": home_of(user, blueprint)}
    if not security.is_root:
        group = security.run_as_user if security.run_as_group is None else security.run_as_group
        return account | {"uid": security.run_as_user, "gid": group}
    if blueprint.account == "root":  # by the operator's word, never by a user's name
        return account | {"uid": 0, "gid": 0}
    if blueprint.account is None:
        return account | {"uid": user.uid, "gid": user.uid if user.gid is None else user.gid}
    return account


def home_of(user: User, blueprint: Blueprint) -> str:
    """Return the path of the account's home."""
    name = blueprint.account or user.name
    return blueprint.home or (ROOT_HOME if blueprint.account == "root" else f"/home/{name}")


def config_of(request: WorkspaceRequest, home: str, *, mounted: bool) -> dict[str, Any]:
    """Return shelld's configuration; `mounted` is set when its sockets have a directory of their own."""
    return shelld_config(
        request,
        account=account_of(request.user, request.blueprint) | {"home": home},
        runtime_dir=volumes.RUNTIME_MOUNTED if mounted else volumes.RUNTIME_ROOT,
        hostname=None,
        idle_stop_s=0,  # a container that ends is started again: proxies stop what is idle
        in_container=True,
    )


def _object(place: Place, api: str, kind: str, **content: Any) -> Object:
    metadata = {
        "name": place.workspace,
        "namespace": place.namespace,
        "labels": dict(place.labels),
        "annotations": labels.owner_annotations(place.user),
    }
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}


def _certificates(place: Place, issuer: TrustSettings | None) -> Iterator[Object]:
    """Ask for the certificate first, since making it takes longest."""
    if issuer is not None:
        name = server_name(place.workspace, place.namespace)
        yield certificate_manifest(place.certificate, place.namespace, name, dict(place.labels), issuer)


def encoded(files: Mapping[str, bytes]) -> dict[str, str]:
    """Write files as a Secret has them."""
    return {name: b64encode(content).decode() for name, content in sorted(files.items())}


def _service(own_labels: Mapping[str, str]) -> Object:
    return {
        "clusterIP": "None",
        "selector": {labels.WORKSPACE: own_labels[labels.WORKSPACE]},
        "ports": [{"name": "shelld", "port": bundle.PORT, "targetPort": bundle.PORT, "protocol": "TCP"}],
    }


def _stateful_set(name: str, template: Object) -> Object:
    return {
        "replicas": 1,
        "serviceName": name,
        "selector": {"matchLabels": {labels.WORKSPACE: name}},
        # The pod of an old blueprint runs on until it is stopped, and one that fails may be replaced.
        "updateStrategy": {"type": "OnDelete"},
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 1,
        "template": template,
    }


def _template(place: Place, settings: KubernetesSettings) -> Object:
    blueprint = place.blueprint
    spec: Object = {
        "automountServiceAccountToken": blueprint.service_account is not None,
        "containers": [_main(place, settings)],
        "enableServiceLinks": False,
        "initContainers": [init_container(blueprint, settings)],
        "restartPolicy": "Always",
        "securityContext": _pod_security(blueprint),
        "serviceAccountName": blueprint.service_account or settings.service_account,
        "terminationGracePeriodSeconds": settings.termination_grace_s,
        "volumes": volumes.volumes(place),
    }
    pull = dict.fromkeys((*blueprint.image_pull_secrets, *settings.image_pull_secrets))
    node = blueprint.node
    optional: Object = {
        "imagePullSecrets": [{"name": name} for name in pull],
        "nodeSelector": dict(node.selector),
        "tolerations": [_toleration(one.model_dump(exclude_none=True)) for one in node.tolerations],
        "priorityClassName": node.priority_class,
        "runtimeClassName": node.runtime_class,
    }
    spec |= {key: value for key, value in optional.items() if value}
    return {"metadata": {"labels": dict(place.labels)}, "spec": spec}


def _main(place: Place, settings: KubernetesSettings) -> Object:
    blueprint = place.blueprint
    container: Object = {
        "name": CONTAINER,
        "image": blueprint.image or settings.default_image,
        "command": bundle.main_command(),
        "ports": [{"name": "shelld", "containerPort": bundle.PORT, "protocol": "TCP"}],
        # No liveness probe: a workspace that is busy must not be ended for it.
        "readinessProbe": {"tcpSocket": {"port": bundle.PORT}, "periodSeconds": 1, "timeoutSeconds": 2},
        "resources": blueprint.resources.model_dump(mode="json"),
        "securityContext": container_security(blueprint),
        "terminationMessagePolicy": "FallbackToLogsOnError",  # so that a crash tells its last words
        "volumeMounts": volumes.mounts(place),
    }
    if blueprint.image_pull_policy:
        container["imagePullPolicy"] = blueprint.image_pull_policy
    return container


def init_container(blueprint: Blueprint, settings: KubernetesSettings) -> Object:
    """Describe the container that brings shelld in."""
    security = blueprint.security
    container: Object = {
        "name": INIT_CONTAINER,
        "image": settings.shelld_image,
        "command": bundle.init_command(),
        # As much as the workspace itself, which does not run yet: a quota may want every container limited.
        "resources": {
            kind: {name: value for name, value in given.items() if name in {"cpu", "memory"}}
            for kind, given in blueprint.resources.model_dump(mode="json").items()
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            **_ids(security.run_as_user, security.run_as_group),
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "fairlead-bundle", "mountPath": bundle.POD_ROOT}],
    }
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    return container


def _ids(user: int | None, group: int | None) -> Object:
    """Run as root, not as the image's user, unless the blueprint says otherwise."""
    if not user:
        return {"runAsUser": 0, "runAsGroup": group or 0}
    return {"runAsUser": user, "runAsGroup": user if group is None else group, "runAsNonRoot": True}


def _pod_security(blueprint: Blueprint) -> Object:
    security = blueprint.security
    context: Object = {"seccompProfile": seccomp(security.seccomp_profile)}
    group = security.fs_group
    if group is None and not security.is_root:
        group = security.run_as_user if security.run_as_group is None else security.run_as_group
    if group is not None:
        context["fsGroup"] = group
        # A large home is not walked at every start once its root belongs to the group.
        context["fsGroupChangePolicy"] = "OnRootMismatch"
    return context


def container_security(blueprint: Blueprint) -> Object:
    """Give the security context of the container that shelld runs in."""
    security = blueprint.security
    context: Object = {
        "allowPrivilegeEscalation": blueprint.allow_privilege_escalation,
        "readOnlyRootFilesystem": security.read_only_root,
        **_ids(security.run_as_user, security.run_as_group),
    }
    capabilities = {"drop": list(security.drop_capabilities), "add": list(security.add_capabilities)}
    if wanted := {key: value for key, value in capabilities.items() if value}:
        context["capabilities"] = wanted
    return context


def seccomp(profile: str) -> Object:
    """Return a blueprint's seccomp profile as Kubernetes writes it. Pure."""
    if profile.startswith("localhost/"):
        return {"type": "Localhost", "localhostProfile": profile.removeprefix("localhost/")}
    return {"type": profile}


def _toleration(given: Object) -> Object:
    """Name the fields as Kubernetes does."""
    if "seconds" in given:
        given["tolerationSeconds"] = given.pop("seconds")
    if not given.get("value"):
        given.pop("value", None)
    return given
