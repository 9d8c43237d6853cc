"""The vocabulary of our objects: keys for selection are labels, all others annotations.

    app.kubernetes.io/name         fairlead-workspace
    app.kubernetes.io/managed-by   fairlead
    app.kubernetes.io/instance     the workspace
    fairlead.dev/workspace         the workspace
    fairlead.dev/user              whose it is, by name
    fairlead.dev/owner             whose it is, by the id of the user; what decides
    fairlead.dev/blueprint         what it was made from

A value that cannot be a label is shortened and ends in a hash of the whole; the annotation of the same name
has it unchanged. Annotations, all `fairlead.dev/…`: `user`, `user-string`, `blueprint`, `created-at`,
`last-start`, `manifest-hash`, `owner`; of a stopped workspace `stopped-by`, `stopped-at`, `stop-reason`;
`given-at` of a workspace and its claims that an operator handed over.
"""

import hashlib
import re
from datetime import datetime

from proxy.model import User, WorkspaceName
from proxy.workspaces.backend import Stop, WorkspaceRecord
from proxy.workspaces.kubernetes.objects import Object, annotations_of, labels_of, made_at, moment, name_of
from proxy.workspaces.ownership import Title, title

DOMAIN = "fairlead.dev"
APP = "fairlead-workspace"
MANAGED_BY = "app.kubernetes.io/managed-by"
WORKSPACE = f"{DOMAIN}/workspace"
USER = f"{DOMAIN}/user"
OWNER = f"{DOMAIN}/owner"
USER_STRING = f"{DOMAIN}/user-string"
GIVEN_AT = f"{DOMAIN}/given-at"
BLUEPRINT = f"{DOMAIN}/blueprint"
CREATED_AT = f"{DOMAIN}/created-at"
LAST_START = f"{DOMAIN}/last-start"
EVENTS_BEFORE = f"{DOMAIN}/events-before"
"""Version of the namespace's events when the last start began; events up to it are about earlier starts."""
MANIFEST_HASH = f"{DOMAIN}/manifest-hash"
STOPPED_BY = f"{DOMAIN}/stopped-by"
STOPPED_AT = f"{DOMAIN}/stopped-at"
STOP_REASON = f"{DOMAIN}/stop-reason"
STOP_ANNOTATIONS = (STOPPED_BY, STOPPED_AT, STOP_REASON)

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

ALL_WORKSPACES = f"{MANAGED_BY}=fairlead,app.kubernetes.io/name={APP}"
"""Selects every object of every workspace."""


def workspace_labels(name: str, *, user: User, blueprint: str) -> dict[str, str]:
    """Give the labels of every object of a workspace."""
    return {
        "app.kubernetes.io/name": APP,
        MANAGED_BY: "fairlead",
        "app.kubernetes.io/instance": name,
        WORKSPACE: name,
        USER: label_value(user.name),
        OWNER: label_value(user.id),
        BLUEPRINT: label_value(blueprint),
    }


def selector_of(name: str) -> str:
    """Select every object of one workspace."""
    return f"{ALL_WORKSPACES},{WORKSPACE}={name}"


def workspace_of(body: Object) -> str:
    """Name the workspace that an object belongs to; empty for none of ours."""
    labels = labels_of(body)
    return labels.get(WORKSPACE, "") if labels.get(MANAGED_BY) == "fairlead" else ""


def label_value(text: str) -> str:
    """Make a label of any text; equal texts give equal labels, and different ones different labels."""
    if _LABEL.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:50].strip("._-")
    return f"{readable}-{digest}" if readable else digest


def owner_annotations(user: User) -> dict[str, str]:
    """Return the annotations that record the owner of an object."""
    return {USER: user.name, OWNER: user.id}


def owner_change(user: User, given_at: datetime) -> Object:
    """Return the metadata to merge into an object that is handed over to a user."""
    return {
        "labels": {USER: label_value(user.name), OWNER: label_value(user.id)},
        "annotations": {**owner_annotations(user), GIVEN_AT: written(given_at)},
    }


def title_to(body: Object, user: User) -> Title:
    """Judge the right of a user to an object with a recorded owner."""
    noted = annotations_of(body)
    return title(noted.get(OWNER, ""), noted.get(USER, ""), made_at(body), user)


def object_name(text: str, *apart: str) -> str:
    """Make a part of an object's name of any text, at most 40 characters, ending in a hash.

    The hash covers `text` and `apart`: names of which any of these differ are different.
    """
    digest = hashlib.sha256("\0".join((text, *apart)).encode()).hexdigest()[:10]
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower())[:29].strip("-")
    return f"{readable}-{digest}" if readable else digest


def older_object_name(text: str) -> str:
    """Return the name that releases before the hash made of a text; their objects keep such names."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower())[:29].strip("-")
    return f"{readable}-{digest}" if readable else digest


def is_object_name(name: str) -> bool:
    """Return whether a workspace may have that name: a DNS label with room for our suffixes."""
    return re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,50}[a-z0-9])?", name) is not None


def user_of(stateful_set: Object) -> str:
    """Return the name of the workspace's user; empty without one."""
    return annotations_of(stateful_set).get(USER, "")


def stop_of(stateful_set: Object) -> Stop | None:
    """Read the reason of a workspace's stop; None when none is recorded."""
    noted = annotations_of(stateful_set)
    at = moment(noted.get(STOPPED_AT))
    if at is None or STOPPED_BY not in noted:
        return None
    return Stop(noted[STOPPED_BY], at, noted.get(STOP_REASON, ""))


def stop_annotations(stop: Stop | None) -> dict[str, str | None]:
    """Give the annotations that note a stop, or, for None, take the note away."""
    if stop is None:
        return dict.fromkeys(STOP_ANNOTATIONS)
    return {STOPPED_BY: stop.by, STOPPED_AT: stop.at.isoformat(), STOP_REASON: stop.reason}


def record_of(stateful_set: Object) -> WorkspaceRecord:
    """Read the record of a workspace from its StatefulSet alone; phase and start come from elsewhere."""
    noted = annotations_of(stateful_set)
    name = name_of(stateful_set)
    return WorkspaceRecord(
        WorkspaceName(name),
        user=noted.get(USER, ""),
        blueprint=noted.get(BLUEPRINT, ""),
        created_at=moment(noted.get(CREATED_AT)) or made_at(stateful_set),
        user_string=noted.get(USER_STRING, ""),
        stop=stop_of(stateful_set),
        location=f"{stateful_set['metadata']['namespace']}/statefulset/{name}",
        owner=noted.get(OWNER, ""),
    )


def written(at: datetime) -> str:
    """Write a time as annotations have it."""
    return at.isoformat(timespec="seconds")
