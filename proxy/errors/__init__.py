"""Every failure that has a name, one module a branch, and what each of three audiences hears of it.

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
    │     ├─ GrantEnded          what refreshes an account at its provider is refused there
    │     ├─ GrantMissing        nothing refreshes the account; its person has to approve
    │     ├─ AccountEnded        the provider does not vouch for the account any more
    │     ├─ ProviderUnavailable (retryable)
    │     └─ ProviderMisconfigured
    ├─ Refused                   policy after login: exit 254, or open refusal 1
    │  ├─ WorkspaceHeld          stopped on request lately; a reconnect does not undo that
    │  ├─ OwnerUnknown           older than the user record; an operator decides whose it is
    │  └─ NameReserved           a system account's name, where workspaces have accounts
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
    │  ├─ DatabaseMissing        there is none yet
    │  └─ SchemaOutdated         it waits for the start of a proxy of this release
    ├─ StateError                what replicas share cannot be changed
    │  ├─ StateUnavailable       (retryable)
    │  ├─ StateConflict
    │  └─ StateRefused
    └─ SettingsError             start-up only; process exit 78

`str(exc)` is for the operator's log. `user_message` is for the person at the terminal and never
holds a secret, a path of ours or a traceback. Whatever is not a FairleadError is a bug.
"""

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
    exit_status: int = EXIT_LINK
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, user_message: str | None = None) -> None:
        super().__init__(message)
        self._user_message = user_message

    @property
    def user_message(self) -> str:
        """One sentence for the person, without trailing newline."""
        return self._user_message or str(self)


class SettingsError(FairleadError):
    """Settings that cannot be used; the message lists every problem with its path."""

    code = "settings"
    exit_status = EXIT_CONFIG


def exit_status_of(exc: BaseException) -> int:
    """Choose the exit status that tells a script what failed: 126, 127, 254, or 255 for the rest."""
    return exc.exit_status if isinstance(exc, FairleadError) else EXIT_LINK


def user_sentence(exc: BaseException, reference: str) -> str:
    """Say to the person what failed; `reference` finds the rest in the log.

    A bug (anything that is not a FairleadError) is called an internal error and nothing else.
    """
    if not isinstance(exc, FairleadError):
        return f"internal error (reference {reference})"
    hint = "; trying again may help" if exc.retryable else ""
    return f"{exc.user_message}{hint} (reference {reference})"
