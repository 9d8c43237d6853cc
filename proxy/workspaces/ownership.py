"""Decisions on the owner of a workspace. Pure.

A workspace belongs to one user record by the record's id, since names change hands: a user is removed and
another one of that name is added. Releases before ids stored names only. Such a workspace belongs to the user
of that name whose record is older than the workspace. If the record is newer, the two users cannot be
distinguished, and an operator decides.
"""

from datetime import datetime
from enum import Enum

from proxy.errors.programs import OwnerUnknown
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import User
from proxy.workspaces.backend import WorkspaceRecord


class Title(Enum):
    """The right of a user to a workspace."""

    RECORDED = "recorded"
    """The user's id is in the record."""
    UNRECORDED = "unrecorded"
    """No id is recorded, and the user is older than the workspace: the id is to be recorded."""
    UNKNOWN = "unknown"
    """No id is recorded, and the user is newer: it may have been made by an earlier user of that name."""
    NONE = "none"
    """It belongs to another user."""

    def __bool__(self) -> bool:
        return self in {Title.RECORDED, Title.UNRECORDED}


def title(owner: str, name: str, made_at: datetime, user: User) -> Title:
    """Decide on the right of `user` to an object of the user `owner` (an id) called `name` made at `made_at`.

    `owner` is empty for what an older release made; `name` is empty if only the user string names the user.
    """
    if owner:
        return Title.RECORDED if owner == user.id else Title.NONE
    if name not in {"", user.name}:
        return Title.NONE
    if user.created_at is None:
        return Title.UNKNOWN
    # Kubernetes cuts off the fraction of the second in which it made an object.
    since = user.created_at if made_at.microsecond else user.created_at.replace(microsecond=0)
    return Title.UNRECORDED if since <= made_at else Title.UNKNOWN


def title_to(record: WorkspaceRecord, user: User) -> Title:
    """Decide on the right of a user to a workspace."""
    return title(record.owner, record.user, record.created_at, user)


def check_title(record: WorkspaceRecord | None, name: str, user: User) -> Title:
    """Return the right of a user to an existing workspace.

    Raises: WorkspaceNotFound, with the same text for a missing workspace and one of another user;
    OwnerUnknown.
    """
    found = Title.NONE if record is None else title_to(record, user)
    if found is Title.NONE:
        raise WorkspaceNotFound(f"there is no workspace {name!r} of {user.name}")
    if found is Title.UNKNOWN:
        raise owner_unknown(name, user)
    return found


def own_record(record: WorkspaceRecord | None, name: str, user: User) -> WorkspaceRecord:
    """Return a record of this user's. Raises: as `check_title`."""
    check_title(record, name, user)
    assert record is not None
    return record


def owner_unknown(name: str, user: User) -> OwnerUnknown:
    """Return the refusal of a workspace that may belong to an earlier user of that name."""
    return OwnerUnknown(
        f"workspace {name} is older than the user {user.name} of today, and may be an earlier user's of that "
        f"name; an operator can hand it over: fairlead workspace give {name} {user.name}"
    )
