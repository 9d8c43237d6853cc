"""The blueprint that a user string means for a user. Pure."""

from collections.abc import Sequence

from proxy.blueprints.audience import may_use
from proxy.blueprints.expressions import Facts
from proxy.blueprints.reading import BlueprintSet, Definition
from proxy.blueprints.schema import Blueprint
from proxy.errors.blueprints import BlueprintNotFound
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import User
from proxy.settings.blueprints import PersonRule
from proxy.userstring import Form, UserString, workspace_name


def resolve_name(
    value: UserString, *, default: str, repositories: bool = False, workloads: bool = False
) -> str:
    """Return the blueprint's name; empty for the form `pod=`, whose workspace has its own.

    `repositories` and `workloads` say what the backend supports.

    Raises: BlueprintNotFound for a repository, WorkspaceNotFound for a workload, that the backend
        does not support.
    """
    instead = f"log in as {value.user}+{value.blueprint or default}"
    if value.form is Form.REPO and not repositories:
        raise BlueprintNotFound(f"workspaces of a repository are not served here; {instead}")
    if value.workload and not workloads:
        raise WorkspaceNotFound(f"there are no cluster workloads to enter here; {instead}")
    if value.form is Form.NAMED:
        return ""
    return value.blueprint or default


def default_blueprint(user: User, rules: Sequence[PersonRule], otherwise: str) -> str:
    """Return the blueprint for a user string without one: that of the first rule for this user."""
    chosen = (
        rule.default
        for rule in rules
        if rule.default is not None and may_use(user, users=rule.users, groups=rule.groups)
    )
    return next(chosen, otherwise)


def find(blueprints: BlueprintSet, name: str, user: User, *, abstract_too: bool = False) -> Definition:
    """Return a blueprint that this user may use; with `abstract_too` as the base of another.

    Raises: BlueprintNotFound, with the same text for a missing blueprint and one for other users; the text
        lists the blueprints of this user.
    """
    definition = blueprints.definitions.get(name)
    if definition is not None and _may_use(definition, user):
        if abstract_too or not definition.sample.abstract:
            return definition
        problem = f"blueprint {name!r} is only a template for others"
    else:
        problem = f"there is no blueprint {name!r}"
    there = ", ".join(definition.name for definition in usable(blueprints, user)) or "none at all"
    raise BlueprintNotFound(f"{problem}; there are: {there}")


def usable(blueprints: BlueprintSet, user: User) -> list[Definition]:
    """Return the blueprints that this user may use, by name."""
    return [
        definition
        for _, definition in sorted(blueprints.definitions.items())
        if not definition.sample.abstract and _may_use(definition, user)
    ]


def resolve(
    blueprints: BlueprintSet, name: str, user: User, origin: UserString, workspace: str = ""
) -> Blueprint:
    """Return the blueprint without inheritance and expressions.

    `workspace` is the workspace's name if it differs from the first one that the user string gives.

    Raises: BlueprintNotFound, as `find`; BlueprintInvalid when an expression has no value for this user.
    """
    definition = find(blueprints, name, user)
    facts = Facts(user, workspace or workspace_name(origin, name), name, origin, blueprints.metadata)
    return definition.resolve(facts)


def _may_use(definition: Definition, user: User) -> bool:
    access = definition.sample.access
    return bool(may_use(user, users=access.users, groups=access.groups))
