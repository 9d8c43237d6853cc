"""The configuration of shelld for a workspace, the same for every backend; `shelld.settings` reads it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from proxy.model import AppSpec
from proxy.workspaces.backend import WorkspaceRequest


def shelld_config(
    request: WorkspaceRequest,
    *,
    account: Mapping[str, Any],
    runtime_dir: str,
    hostname: str | None,
    idle_stop_s: float,
    in_container: bool = False,
) -> dict[str, Any]:
    """Return the configuration as JSON. Pure.

    `account` is the workspace's own: name, uid, gid, home, shell. `hostname` None keeps the host's;
    `idle_stop_s` 0 means that shelld never ends by itself. `in_container`: /etc belongs to the workspace, so
    that shelld may write the account, and its right to sudo, to the files there, and programs get the ENV of
    its image.
    """
    blueprint = request.blueprint
    boot = [app.spec(slug) for slug, app in blueprint.apps.items() if app.start and app.when == "boot"]
    # Both are sent only where they are used: an older shelld refuses unknown fields.
    rare = ({} if blueprint.user_rc else {"user_rc": False}) | ({"apps": _apps(boot)} if boot else {})
    return rare | {
        "workspace": request.name,
        "user": request.user.name,
        "account": dict(account),
        "create_account": in_container,
        "container_env": in_container,
        "sudo": in_container and blueprint.sudo,
        "accounts": list(blueprint.accounts),
        "shell": blueprint.shell,
        "env": dict(blueprint.env),
        "accept_env": list(blueprint.all_accept_env),
        # As above: `required` is said only where it is on.
        "init": [
            script.model_dump(exclude_defaults=True) | {"when": script.when} for script in blueprint.init
        ],
        "forward": {key: list(rules) for key, rules in blueprint.forward.model_dump().items()},
        "runtime_dir": runtime_dir,
        "hostname": hostname,
        "idle_stop_s": idle_stop_s,
        "limits": blueprint.limits.model_dump(),
    }


def _apps(specs: Iterable[AppSpec]) -> list[dict[str, Any]]:
    return [asdict(spec) | {"digest": spec.digest} for spec in specs]
