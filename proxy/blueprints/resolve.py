"""Which blueprint a user string means. Pure."""

from proxy.errors import BlueprintNotFound, WorkspaceNotFound
from proxy.userstring import Form, UserString


def resolve_name(
    value: UserString, *, default: str, repositories: bool = False, workloads: bool = False
) -> str:
    """Choose the blueprint's name; empty for the named form, whose workspace knows its own.

    `repositories` and `workloads` say what the backend can serve.

    Raises: BlueprintNotFound for a repository, WorkspaceNotFound for a workload, that the backend
        cannot serve.
    """
    instead = f"log in as {value.user}+{value.blueprint or default}"
    if value.form is Form.REPO and not repositories:
        raise BlueprintNotFound(f"workspaces of a repository are not served here; {instead}")
    if value.workload and not workloads:
        raise WorkspaceNotFound(f"there are no cluster workloads to enter here; {instead}")
    if value.form is Form.NAMED:
        return ""
    return value.blueprint or default
