"""A workspace beside a program that runs already: the additions to a workload's pods, no more. Pure.

A container of the program's own image, with its volumes, runs shelld; it shares the network of the pod, and
its processes where the settings say so. It has no part in whether the pod is ready.

Everything is applied under a field manager of this workspace's own, so that applying nothing under that name
takes exactly that away again, and so that a second workspace finds the place taken.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.settings.kubernetes import InjectRule, KubernetesSettings
from proxy.userstring import format_user_string
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.kubernetes import bundle, labels, manifest
from proxy.workspaces.kubernetes.objects import DAEMON_SET, DEPLOYMENT, STATEFUL_SET, Kind, Object, listed

CONTAINER = "fairlead-workspace"
KINDS: Mapping[str, Kind] = {"deployment": DEPLOYMENT, "statefulset": STATEFUL_SET, "daemonset": DAEMON_SET}
VOLUMES = ("fairlead-bundle", "fairlead-trust", "fairlead-config", "fairlead-home", "fairlead-run")


def manager_of(workspace: str) -> str:
    """Name the field manager of one workspace."""
    return f"fairlead-{workspace}"


def parts(
    request: WorkspaceRequest, config: Mapping[str, Any], files: Mapping[str, bytes]
) -> tuple[Object, Object]:
    """Give the ConfigMap and the Secret that the container mounts."""
    shared = {"data": {"shelld.json": json.dumps(config, indent=1, sort_keys=True)}}
    secret = {"type": "Opaque", "data": manifest.encoded(files)}
    return _object(request, "ConfigMap", shared), _object(request, "Secret", secret)


def injection(
    request: WorkspaceRequest, workload: Object, settings: KubernetesSettings, rule: InjectRule
) -> Object:
    """Return the body that is applied to a workload."""
    own = {labels.WORKSPACE: request.name}
    annotations = {
        **labels.owner_annotations(request.user),
        labels.BLUEPRINT: request.blueprint.name,
        labels.USER_STRING: format_user_string(replace(request.origin, account="", pod="")),
    }
    spec: Object = {
        "initContainers": [_confined(manifest.init_container(request.blueprint, settings), request)],
        "containers": [_confined(_container(request, workload, settings), request)],
        "volumes": _volumes(request),
    }
    if rule.share_processes:
        spec["shareProcessNamespace"] = True
    body = _named(workload)
    body["metadata"] |= {"labels": own, "annotations": annotations}
    body["spec"] = {"template": {"metadata": {"labels": own}, "spec": spec}}
    return body


def removal(workload: Object) -> Object:
    """Return the body that is applied to remove an injection: an empty one."""
    return _named(workload)


def home_of(request: WorkspaceRequest) -> str:
    """Return the path of the account's home."""
    return manifest.home_of(request.user, request.blueprint)


def _named(workload: Object) -> Object:
    metadata = workload["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": workload["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }


def _object(request: WorkspaceRequest, kind: str, content: Object) -> Object:
    own = labels.workspace_labels(request.name, user=request.user, blueprint=request.blueprint.name)
    metadata = {"name": request.name, "namespace": request.origin.ns, "labels": own}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **content}


def _container(request: WorkspaceRequest, workload: Object, settings: KubernetesSettings) -> Object:
    blueprint = request.blueprint
    theirs = next(
        one for one in listed(workload, "spec", "template", "spec", "containers") if one["name"] != CONTAINER
    )
    own: list[Object] = [
        {"name": "fairlead-bundle", "mountPath": bundle.POD_ROOT, "readOnly": True},
        {"name": "fairlead-trust", "mountPath": bundle.TRUST_DIRECTORY, "readOnly": True},
        {"name": "fairlead-config", "mountPath": bundle.CONFIG_FILE.rpartition("/")[0], "readOnly": True},
        {"name": "fairlead-home", "mountPath": home_of(request)},
        {"name": "fairlead-run", "mountPath": manifest.RUNTIME_MOUNTED},
    ]
    taken = {mount["mountPath"] for mount in own}
    return {
        "name": CONTAINER,
        "image": blueprint.image or theirs["image"],
        "command": bundle.main_command(),
        "resources": blueprint.resources.model_dump(mode="json"),
        "securityContext": manifest.container_security(blueprint),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": own
        + [mount for mount in theirs.get("volumeMounts") or [] if mount["mountPath"] not in taken],
    }


def _confined(container: Object, request: WorkspaceRequest) -> Object:
    """Add the seccomp profile, which a workspace's own pod has for all of its containers. Pure."""
    profile = manifest.seccomp(request.blueprint.security.seccomp_profile)
    return container | {"securityContext": {**container["securityContext"], "seccompProfile": profile}}


def _volumes(request: WorkspaceRequest) -> list[Object]:
    mode = 0o400 if request.blueprint.security.is_root else 0o444
    return [
        {"name": "fairlead-bundle", "emptyDir": {}},
        {"name": "fairlead-trust", "secret": {"secretName": request.name, "defaultMode": mode}},
        {"name": "fairlead-config", "configMap": {"name": request.name, "defaultMode": 0o444}},
        {"name": "fairlead-home", "emptyDir": {}},
        {"name": "fairlead-run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
