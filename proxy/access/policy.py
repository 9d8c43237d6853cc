"""The access policy: pure decisions on logins, on staying connected, and on each action in a workspace.

There is one function for each action. `gateway` calls it before the action, for every client protocol.
`blueprints` and `workspaces` hold the rules on blueprints and on the number of workspaces; shelld decides
where a forward may lead inside the workspace.
"""

from datetime import datetime

from proxy.blueprints.sharing import Share
from proxy.model import (
    ALLOWED,
    VISITOR,
    Bind,
    Decision,
    Exec,
    Shell,
    SshAgentBind,
    Subsystem,
    Target,
    User,
    Visit,
)

PROGRAM_SUBSYSTEMS = frozenset({"sftp"})
"""Subsystems that run in the workspace."""
CONTROLS = frozenset({"workspace-start", "workspace-stop", "workspace-status"})
"""Subsystems about the workspace that do not enter it; Fairlead answers them itself."""
SUBSYSTEMS = PROGRAM_SUBSYSTEMS | CONTROLS

GROUPS_ENDED = Decision(
    "your groups do not open this workspace any more; log in again to have them read anew"
)
NOT_THE_OWNER = Decision("this workspace belongs to another user")
NOT_SHARED = Decision("this app is not shared with you any more")
"""Also where its owner may not log in any more: that is no matter of the user who asks."""


def may_login(user: User, now: datetime) -> Decision:
    """Decide whether a user whose credential was proved may have a connection at `now`."""
    if user.locked:
        return Decision("this user is locked")
    if user.expires_at is not None and user.expires_at <= now:
        return Decision(f"this user expired on {user.expires_at:%Y-%m-%d at %H:%M} UTC")
    return ALLOWED


def may_stay(user: User | None, has_key: bool, now: datetime, *, ended_at_provider: str = "") -> Decision:
    """Decide whether a connection may go on, by the directory's records of its user and key at `now`.

    `ended_at_provider` names a provider that vouched for the key and does not any more.
    """
    if user is None:
        return Decision("this user was removed")
    if ended_at_provider and may_login(user, now):
        return account_ended(ended_at_provider)
    return may_login(user, now) if has_key else Decision("the key of this connection was removed")


def account_ended(provider: str) -> Decision:
    """Refuse a key whose account has ended at the provider that vouched for it."""
    return Decision(f"{provider} does not vouch for this account any more; log in again to ask it")


def may_run(visit: Visit, kind: Shell | Exec | Subsystem) -> Decision:
    """Decide whether a program may run in the workspace: for its owner, any except unknown subsystems."""
    if isinstance(kind, Subsystem) and kind.name not in SUBSYSTEMS:
        return Decision(f"no subsystem {kind.name!r}; there is {', '.join(sorted(SUBSYSTEMS))}")
    return _is_owner(visit)


def may_control(visit: Visit, what: str) -> Decision:
    """Decide whether the workspace may be started, stopped or shown: by its owner."""
    if what not in CONTROLS:
        return Decision(f"no command {what!r}; there is {', '.join(sorted(CONTROLS))}")
    return _is_owner(visit)


def may_dial(visit: Visit, target: Target) -> Decision:
    """Decide whether a connection from inside the workspace to `target` may be made: for its owner."""
    del target
    return _is_owner(visit)


def may_open(visit: Visit, share: Share, now: datetime) -> Decision:
    """Decide whether an app may be reached at `now`: by its owner, and by the users whom its share admits.

    Neither the owner nor the user who asks may be locked or expired. Whether the blueprint is still for the
    owner is decided with the request for the workspace.
    """
    if visit.actor is not VISITOR and not (decision := may_login(visit.actor, now)):
        return decision
    if not may_login(visit.owner, now):
        return NOT_SHARED
    return ALLOWED if share.admits(visit.actor) else _is_owner(visit)


def may_demand_app(visit: Visit, wake: str) -> Decision:
    """Decide whether a request may start an app: its owner's, and with the value `visitors` any user's."""
    if wake == "visitors" and visit.actor is not VISITOR:
        return ALLOWED
    return _is_owner(visit)


def may_use_app_controls(visit: Visit) -> Decision:
    """Decide whether an app may be started, stopped and listed, and its log be read: by its owner."""
    return _is_owner(visit)


def may_listen(visit: Visit, bind: Bind) -> Decision:
    """Decide whether the client may receive connections to `bind` in the workspace: for its owner.

    The socket of an ssh-agent requires an SSH key as credential, which a browser does not have.
    """
    if (decision := _is_owner(visit)) and isinstance(bind, SshAgentBind) and not visit.principal.fingerprint:
        return Decision("an ssh-agent is forwarded by SSH clients only")
    return decision


def may_accept(visit: Visit) -> Decision:
    """Decide whether the client may receive one connection that reached a listener."""
    return _is_owner(visit)


def _is_owner(visit: Visit) -> Decision:
    if visit.actor is VISITOR:
        return NOT_THE_OWNER
    same = (visit.actor.id, visit.actor.name) == (visit.owner.id, visit.owner.name)
    return ALLOWED if same else NOT_THE_OWNER
