"""Every NATS subject and the event published there: the only module with subject names.

A subject is also the `type` of its CloudEvents. A new event needs a row here and a class in `schema`.

Inside the process a subject always begins with `fairlead`. On the wire, the configured prefix replaces it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from proxy.events import schema

ROOT = "fairlead"

AUTH_FAILED = "fairlead.auth.failed"
AUTH_SUCCEEDED = "fairlead.auth.succeeded"
AUTH_BANNED = "fairlead.auth.banned"
AUTH_UNBANNED = "fairlead.auth.unbanned"
USER_ONBOARDING_STARTED = "fairlead.user.onboarding_started"
USER_ONBOARDED = "fairlead.user.onboarded"
USER_ONBOARDING_REFUSED = "fairlead.user.onboarding_refused"
USER_WAITLISTED = "fairlead.user.waitlisted"
USER_LOCKED = "fairlead.user.locked"
USER_UNLOCKED = "fairlead.user.unlocked"
USER_KEY_ADDED = "fairlead.user.key_added"
USER_KEY_REMOVED = "fairlead.user.key_removed"
SESSION_OPENED = "fairlead.session.opened"
SESSION_UPDATED = "fairlead.session.updated"
SESSION_CLOSED = "fairlead.session.closed"
SESSION_PROGRAM_STARTED = "fairlead.session.program_started"
SESSION_PROGRAM_ENDED = "fairlead.session.program_ended"
SESSION_KILL_ORDERED = "fairlead.session.kill_ordered"
SESSION_RECORDING_INTERRUPTED = "fairlead.session.recording_interrupted"
SESSION_RECORDING_LOST = "fairlead.session.recording_lost"
SESSION_RECORDING_CLOSED = "fairlead.session.recording_closed"
WEB_SIGNED_IN = "fairlead.web.signed_in"
WEB_SIGN_IN_REFUSED = "fairlead.web.sign_in_refused"
WEB_SIGNED_OUT = "fairlead.web.signed_out"
WEB_LINK_MADE = "fairlead.web.link_made"
WEB_SHARE_CHANGED = "fairlead.web.share_changed"
WORKSPACE_STARTED = "fairlead.workspace.started"
WORKSPACE_STOPPED = "fairlead.workspace.stopped"
WORKSPACE_STOPPING_SOON = "fairlead.workspace.stopping_soon"
WORKSPACE_FAILED = "fairlead.workspace.failed"

TABLE: Mapping[str, type[schema.Event]] = MappingProxyType(
    {
        AUTH_FAILED: schema.AuthFailed,
        AUTH_SUCCEEDED: schema.AuthSucceeded,
        AUTH_BANNED: schema.AddressBannedEvent,
        AUTH_UNBANNED: schema.AddressUnbanned,
        USER_ONBOARDING_STARTED: schema.OnboardingStarted,
        USER_ONBOARDED: schema.Onboarded,
        USER_ONBOARDING_REFUSED: schema.OnboardingRefusedEvent,
        USER_WAITLISTED: schema.WaitlistedEvent,
        USER_LOCKED: schema.UserLocked,
        USER_UNLOCKED: schema.UserUnlocked,
        USER_KEY_ADDED: schema.KeyAdded,
        USER_KEY_REMOVED: schema.KeyRemoved,
        SESSION_OPENED: schema.SessionOpened,
        SESSION_UPDATED: schema.SessionUpdated,
        SESSION_CLOSED: schema.SessionClosed,
        SESSION_PROGRAM_STARTED: schema.ProgramStarted,
        SESSION_PROGRAM_ENDED: schema.ProgramEnded,
        SESSION_KILL_ORDERED: schema.SessionKillOrdered,
        SESSION_RECORDING_INTERRUPTED: schema.RecordingInterrupted,
        SESSION_RECORDING_LOST: schema.RecordingLostEvent,
        SESSION_RECORDING_CLOSED: schema.RecordingClosed,
        WEB_SIGNED_IN: schema.WebSignedIn,
        WEB_SIGN_IN_REFUSED: schema.WebSignInRefused,
        WEB_SIGNED_OUT: schema.WebSignedOut,
        WEB_LINK_MADE: schema.WebLinkMade,
        WEB_SHARE_CHANGED: schema.WebShareChanged,
        WORKSPACE_STARTED: schema.WorkspaceStarted,
        WORKSPACE_STOPPED: schema.WorkspaceStopped,
        WORKSPACE_STOPPING_SOON: schema.WorkspaceStoppingSoon,
        WORKSPACE_FAILED: schema.WorkspaceFailed,
    }
)

ALL = "fairlead.>"
ALL_AUTH = "fairlead.auth.*"
ALL_USER = "fairlead.user.*"

_SUBJECT_OF = {payload: subject for subject, payload in TABLE.items()}


def subject_of(event: schema.Event) -> str:
    """Return the subject of `event`.

    Raises: KeyError for a class without a row.
    """
    return _SUBJECT_OF[type(event)]


def check_pattern(pattern: str) -> None:
    """Check that `pattern` is a subject of Fairlead, with `*` for one token and `>` for the rest.

    Raises: ValueError.
    Source: https://docs.nats.io/nats-concepts/subjects
    """
    first, *rest = pattern.split(".")
    fits = first == ROOT and rest and all(_is_token(token) for token in rest) and ">" not in rest[:-1]
    if not fits:
        raise ValueError(f"{pattern!r} is not a pattern of subjects below {ROOT!r}")


def _is_token(token: str) -> bool:
    return token in ("*", ">") or (token.isascii() and token.replace("_", "").replace("-", "").isalnum())


def matches(pattern: str, subject: str) -> bool:
    """Match as NATS does: `*` is exactly one token, a final `>` is one or more."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        if len(tokens) < len(wanted):
            return False
        wanted, tokens = wanted[:-1], tokens[: len(wanted) - 1]
    return len(wanted) == len(tokens) and all(
        want in ("*", token) for want, token in zip(wanted, tokens, strict=True)
    )


def to_wire(subject: str, prefix: str) -> str:
    """Replace `fairlead` by the configured prefix."""
    return prefix + subject.removeprefix(ROOT)


def from_wire(subject: str, prefix: str) -> str:
    """Replace the configured prefix by `fairlead`."""
    return ROOT + subject.removeprefix(prefix)
