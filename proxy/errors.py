"""Every failure that has a name, and what each of three audiences hears of it.

    FairleadError                code · user_message · exit_status · retryable
    ├─ LoginError                no channel yet: said by banner or disconnect, then no login
    │  ├─ UserStringInvalid(position)
    │  ├─ LoginRefused
    │  │  ├─ LockedOut
    │  │  ├─ UserExpired
    │  │  ├─ AddressBanned
    │  │  └─ TooManySessions
    │  └─ OnboardingError        somebody new is not let in; each has a sentence of its own
    │     ├─ KeyNotProved
    │     ├─ TooManyPending      (retryable)
    │     │  ├─ TooManyFromSource
    │     │  └─ TooManyForName
    │     ├─ CodeExpired         (retryable)
    │     ├─ ApprovalDenied
    │     ├─ OtherAccount
    │     ├─ AccountInactive
    │     ├─ KeyNotListed
    │     ├─ KeyNotConfirmed
    │     ├─ OnboardingRefused
    │     │  └─ OnboardingRejected
    │     ├─ Waitlisted
    │     ├─ NameTaken
    │     ├─ ProviderUnavailable (retryable)
    │     └─ ProviderMisconfigured
    ├─ Refused                   policy after login: exit 254, or open refusal 1
    │  └─ WorkspaceHeld          stopped on request lately; a reconnect does not undo that
    ├─ OpenFailed(kind)          a forward that could not be connected or bound
    ├─ ProgramNotStarted(kind)   the workspace is there, the program is not
    ├─ BlueprintError
    │  ├─ BlueprintNotFound      there is none for this person: exit 254
    │  ├─ BlueprintInvalid(where)
    │  ├─ BlueprintSourceFailed  (retryable)
    │  └─ RepositoryUnreachable  (retryable)
    ├─ WorkspaceError
    │  ├─ WorkspaceNotFound
    │  ├─ WorkspaceStartFailed   (retryable)
    │  │  └─ WorkspaceUnstartable
    │  ├─ ReadyTimeout           (retryable)
    │  ├─ StopTimeout            (retryable)
    │  └─ ClusterError           what was asked of Kubernetes was not done
    │     ├─ ClusterForbidden
    │     ├─ ClusterRefused
    │     ├─ ClusterConflict     (retryable)
    │     ├─ ClusterNotFound
    │     └─ ClusterUnavailable  (retryable)
    │        └─ ClusterThrottled (retryable)
    ├─ UpstreamError
    │  ├─ Unreachable            (retryable)
    │  │  └─ Draining            it takes no new work, because it is being stopped
    │  ├─ Incompatible
    │  └─ UpstreamLost           (retryable)
    ├─ IdentityError             what was asked of the directory cannot be done
    │  ├─ UserNotFound
    │  ├─ UserExists
    │  ├─ KeyNotFound
    │  └─ KeyInvalid
    ├─ TrustError                certificates or keys of workspaces cannot be had (retryable)
    ├─ RecordingError            what must be recorded cannot be, or a recording cannot be read
    │  ├─ RecordingUnavailable   (retryable) a program is not started unrecorded: exit 254
    │  ├─ RecordingLost          (retryable) a program is not left running unrecorded: exit 254
    │  └─ RecordingNotFound
    ├─ StoreError                the identity store cannot answer
    ├─ StateError                what replicas share cannot be changed
    │  ├─ StateUnavailable       (retryable)
    │  ├─ StateConflict
    │  └─ StateRefused
    └─ SettingsError             start-up only; process exit 78

`str(exc)` is for the operator's log. `user_message` is for the person at the terminal and never
holds a secret, a path of ours or a traceback. Whatever is not a FairleadError is a bug.
"""

from enum import Enum
from typing import ClassVar

EXIT_LINK = 255
"""The SSH link, the workspace or Fairlead itself failed; the same number `ssh` uses for its own errors."""

EXIT_REFUSED = 254
"""Policy refused after login."""

EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: the process was given bad settings."""


class FairleadError(Exception):
    """Name a failure; `code` is stable, dotted, unique, and doubles as a metric label."""

    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = EXIT_LINK
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, user_message: str | None = None) -> None:
        super().__init__(message)
        self._user_message = user_message

    @property
    def user_message(self) -> str:
        """One sentence for the person, without trailing newline."""
        return self._user_message or str(self)


class LoginError(FairleadError):
    """The connection ends before any channel exists."""

    code = "login"


class UserStringInvalid(LoginError):
    """What was typed before `@` cannot be parsed; `position` counts characters from 0."""

    code = "login.user_string_invalid"

    def __init__(self, reason: str, *, text: str, position: int) -> None:
        self.reason = reason
        self.text = text
        self.position = position
        super().__init__(f"user string {text!r}: {reason} (at character {position + 1})")


class LoginRefused(LoginError):
    """Nobody is told whether the user, the key or a rule was the reason; the log is."""

    code = "login.refused"


class LockedOut(LoginRefused):
    """The key is right, and an operator has locked its user."""

    code = "login.locked"


class UserExpired(LoginRefused):
    """The key is right, and its user was let in until a moment that has passed."""

    code = "login.expired"


class AddressBanned(LoginRefused):
    """The key is right, and an operator has banned the address that it comes from."""

    code = "login.address_banned"


class TooManySessions(LoginRefused):
    """The key is right, and its user has as many connections as one may have."""

    code = "login.too_many_sessions"


class OnboardingError(LoginError):
    """A person who is not in the directory could not be let in.

    `user_message` names no account, key or claim of the provider: whoever asks need not be its owner.
    """

    code = "onboarding"
    account: str = ""
    """The account that approved, once it is known: for events, never for the person."""


class KeyNotProved(OnboardingError):
    """Onboarding was asked for without a key whose signature was verified."""

    code = "onboarding.key_not_proved"


class TooManyPending(OnboardingError):
    """So many people wait for approval that nobody else may begin."""

    code = "onboarding.too_many_pending"
    retryable = True


class TooManyFromSource(TooManyPending):
    """One address has as many approvals pending, or began as many of late, as it may."""

    code = "onboarding.too_many_from_source"


class TooManyForName(TooManyPending):
    """One user name has as many approvals pending as it may."""

    code = "onboarding.too_many_for_name"


class CodeExpired(OnboardingError):
    """Nobody approved in time, or nobody was left waiting."""

    code = "onboarding.code_expired"
    retryable = True


class ApprovalDenied(OnboardingError):
    """The person, or the provider on their behalf, said no."""

    code = "onboarding.denied"


class OtherAccount(OnboardingError):
    """The account that approved is not the user name that was typed."""

    code = "onboarding.other_account"


class AccountInactive(OnboardingError):
    """The account that approved is blocked or suspended at its provider."""

    code = "onboarding.account_inactive"


class KeyNotListed(OnboardingError):
    """Approved, but the provider does not list the proved key for that account."""

    code = "onboarding.key_not_listed"


class KeyNotConfirmed(OnboardingError):
    """Approved, but nobody confirmed this key on a page that shows it."""

    code = "onboarding.key_not_confirmed"


class OnboardingRefused(OnboardingError):
    """A rule keeps this account out; the message names the rule."""

    code = "onboarding.refused"


class OnboardingRejected(OnboardingRefused):
    """An operator looked at the waiting list and said no to this account."""

    code = "onboarding.rejected"


class Waitlisted(OnboardingError):
    """A rule lets this account in only after an operator approves."""

    code = "onboarding.waitlisted"


class NameTaken(OnboardingError):
    """The user name belongs to another account already."""

    code = "onboarding.name_taken"


class ProviderUnavailable(OnboardingError):
    """The identity provider does not answer, or not sensibly."""

    code = "onboarding.provider_unavailable"
    retryable = True


class ProviderMisconfigured(OnboardingError):
    """The identity provider refuses us, or its answers do not fit our settings."""

    code = "onboarding.provider_misconfigured"


class Refused(FairleadError):
    """A rule forbids what a logged-in user asked for."""

    code = "refused"
    exit_status = EXIT_REFUSED


class WorkspaceHeld(Refused):
    """Somebody stopped the workspace a moment ago, and meant it."""

    code = "refused.workspace_held"


class OpenFailedKind(Enum):
    """Why a connection or a listener could not be had in the workspace."""

    PROHIBITED = "prohibited"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed out"
    NOT_FOUND = "not found"
    PERMISSION = "permission denied"
    RESOURCES = "out of resources"
    ADDRESS_IN_USE = "address in use"
    INVALID = "invalid"


class OpenFailed(FairleadError):
    """A dial or a bind failed in the workspace, for the reason that the workspace gave."""

    code = "forward.open_failed"

    def __init__(self, kind: OpenFailedKind, reason: str) -> None:
        self.kind = kind
        super().__init__(reason or kind.value)


class ProgramNotStartedKind(Enum):
    """Why shelld could not start a program."""

    NOT_FOUND = "not found"
    NOT_EXECUTABLE = "not executable"
    NO_SUCH_ACCOUNT = "no such account"
    ACCOUNT_DENIED = "account denied"
    NO_PTY = "no pty"
    RESOURCES = "out of resources"
    INVALID = "invalid"


class ProgramNotStarted(FairleadError):
    """The workspace runs, but not this program."""

    code = "program.not_started"
    _statuses: ClassVar[dict[ProgramNotStartedKind, int]] = {
        ProgramNotStartedKind.NOT_FOUND: EXIT_NOT_FOUND,
        ProgramNotStartedKind.NOT_EXECUTABLE: EXIT_NOT_EXECUTABLE,
        ProgramNotStartedKind.ACCOUNT_DENIED: EXIT_REFUSED,
    }

    def __init__(self, kind: ProgramNotStartedKind, reason: str) -> None:
        self.kind = kind
        super().__init__(reason or kind.value)


class BlueprintError(FairleadError):
    """A blueprint is missing or wrong."""

    code = "blueprint"


class BlueprintNotFound(BlueprintError):
    """No blueprint of that name can be used by this user."""

    code = "blueprint.not_found"
    exit_status = EXIT_REFUSED


class BlueprintInvalid(BlueprintError):
    """A blueprint file cannot be used; `where` is file, line and path of the first problem."""

    code = "blueprint.invalid"

    def __init__(self, where: str, reason: str, *, user_message: str | None = None) -> None:
        self.where = where
        self.reason = reason
        broken = "this blueprint is broken; its owner can see why in the log"
        super().__init__(f"{where}: {reason}", user_message=user_message or broken)


class BlueprintSourceFailed(BlueprintError):
    """What keeps the blueprints cannot be asked; start-up only, later the last good ones serve."""

    code = "blueprint.source_failed"
    retryable = True

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason, user_message="the blueprints cannot be read; an operator can see why in the log"
        )


class RepositoryUnreachable(BlueprintError):
    """The provider of a repository does not answer, or not sensibly."""

    code = "blueprint.repository_unreachable"
    retryable = True


class WorkspaceError(FairleadError):
    """A workspace cannot be had."""

    code = "workspace"


class WorkspaceNotFound(WorkspaceError):
    """A named workspace does not exist; the named form never provisions."""

    code = "workspace.not_found"


class WorkspaceStartFailed(WorkspaceError):
    """The workspace did not start; the message says why in words."""

    code = "workspace.start_failed"
    retryable = True


class WorkspaceUnstartable(WorkspaceStartFailed):
    """The workspace cannot start until somebody changes something; the message says who and what."""

    code = "workspace.unstartable"
    retryable = False


class ReadyTimeout(WorkspaceError):
    """The workspace did not become ready in time."""

    code = "workspace.ready_timeout"
    retryable = True


class StopTimeout(WorkspaceError):
    """The workspace was told to stop, and is not known to have done so in time."""

    code = "workspace.stop_timeout"
    retryable = True


class ClusterError(WorkspaceError):
    """Kubernetes did not do what was asked of it; the message has its words, for the operator."""

    code = "cluster"

    @property
    def user_message(self) -> str:
        return (
            self._user_message or "the cluster did not do what was asked; its operator can see why in the log"
        )


class ClusterForbidden(ClusterError):
    """Our service account may not; the message names verb and resource."""

    code = "cluster.forbidden"


class ClusterRefused(ClusterError):
    """A quota, an admission rule or validation said no to an object."""

    code = "cluster.refused"


class ClusterConflict(ClusterError):
    """Somebody else was faster: the object exists already, or is no longer what it was."""

    code = "cluster.conflict"
    retryable = True


class ClusterNotFound(ClusterError):
    """There is no such object, or no such namespace."""

    code = "cluster.not_found"


class ClusterUnavailable(ClusterError):
    """The API server gave no answer, or none that was its own, for as long as we kept asking."""

    code = "cluster.unavailable"
    retryable = True
    retry_after_s: float = 0.0
    """How long the server wants to be left alone, when it said so."""

    @property
    def user_message(self) -> str:
        return self._user_message or "the cluster does not answer at the moment"


class ClusterThrottled(ClusterUnavailable):
    """The API server has more to do than it can, and said so for as long as we kept asking."""

    code = "cluster.throttled"


class UpstreamError(FairleadError):
    """Something between the proxy and shelld."""

    code = "upstream"


class Unreachable(UpstreamError):
    """Nobody answers at the workspace's address within the deadline."""

    code = "upstream.unreachable"
    retryable = True


class Draining(Unreachable):
    """The workspace is about to be stopped and takes no new work; nothing was done there."""

    code = "upstream.draining"


class Incompatible(UpstreamError):
    """shelld speaks another major version, or is another workspace's."""

    code = "upstream.incompatible"


class UpstreamLost(UpstreamError):
    """The link broke while in use."""

    code = "upstream.lost"
    retryable = True


class TrustError(FairleadError):
    """What proves a proxy to workspaces, and them to it, cannot be read, made or kept."""

    code = "trust"
    retryable = True

    @property
    def user_message(self) -> str:
        return "Fairlead cannot prove itself to workspaces now; its operator can see why in the log"


class IdentityError(FairleadError):
    """What was asked of the directory cannot be done; said to the operator, never to somebody who logs in."""

    code = "identity"


class UserNotFound(IdentityError):
    """The directory has no such user."""

    code = "identity.user_not_found"


class UserExists(IdentityError):
    """The directory has that user already."""

    code = "identity.user_exists"


class KeyNotFound(IdentityError):
    """The user has no such key."""

    code = "identity.key_not_found"


class KeyInvalid(IdentityError):
    """A public key cannot be used: damaged, weak, or of another kind than it says."""

    code = "identity.key_invalid"


class RecordingError(FairleadError):
    """The store of recordings cannot do what was asked of it."""

    code = "recording"


class RecordingUnavailable(RecordingError):
    """A rule wants no program to run unrecorded, and none can be recorded now."""

    code = "recording.unavailable"
    exit_status = EXIT_REFUSED
    retryable = True


class RecordingLost(RecordingError):
    """The same, and the program was running."""

    code = "recording.lost"
    exit_status = EXIT_REFUSED
    retryable = True


class RecordingNotFound(RecordingError):
    """There is no such recording."""

    code = "recording.not_found"


class StoreError(FairleadError):
    """The identity store cannot answer."""

    code = "store"
    retryable = True


class StateError(FairleadError):
    """What replicas share could not be changed; what is known of it can still be read."""

    code = "state"


class StateUnavailable(StateError):
    """The store of shared state does not answer; the change may have been made all the same."""

    code = "state.unavailable"
    retryable = True


class StateConflict(StateError):
    """Somebody else changed the entry first."""

    code = "state.conflict"


class StateRefused(StateError):
    """The store will never take this change: too large, full, or not permitted."""

    code = "state.refused"


class SettingsError(FairleadError):
    """Settings that cannot be used; the message lists every problem with its path."""

    code = "settings"
    exit_status = EXIT_CONFIG


def exit_status_of(exc: BaseException) -> int:
    """Choose the exit status that tells a script what failed: 126, 127, 254, or 255 for the rest."""
    if isinstance(exc, ProgramNotStarted):
        return exc._statuses.get(exc.kind, EXIT_LINK)
    return exc.exit_status if isinstance(exc, FairleadError) else EXIT_LINK


def user_sentence(exc: BaseException, reference: str) -> str:
    """Say to the person what failed; `reference` finds the rest in the log.

    A bug (anything that is not a FairleadError) is called an internal error and nothing else.
    """
    if not isinstance(exc, FairleadError):
        return f"internal error (reference {reference})"
    hint = "; trying again may help" if exc.retryable else ""
    return f"{exc.user_message}{hint} (reference {reference})"
