"""Named failures, one module a branch, with their texts for log, user and script.

    FairleadError                code · user_message · exit_status · retryable
    ├─ LoginError                before any channel: shown by banner or disconnect, then no login
    │  ├─ UserStringInvalid(position)
    │  ├─ LoginRefused
    │  │  ├─ LockedOut
    │  │  ├─ UserExpired
    │  │  ├─ AddressBanned
    │  │  └─ TooManySessions
    │  └─ OnboardingError        a new user is not let in; each has a sentence of its own
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
    │     ├─ GrantEnded          the provider refuses the token that refreshes an account
    │     ├─ GrantMissing        no token to refresh the account; its user has to approve
    │     ├─ AccountEnded        the provider does not vouch for the account any more
    │     ├─ ProviderUnavailable (retryable)
    │     └─ ProviderMisconfigured
    ├─ Refused                   policy after login: exit 254, or open refusal 1
    │  ├─ WorkspaceHeld          stopped on request lately; a reconnect does not start it
    │  ├─ OwnerUnknown           older than the user record; an operator decides who owns it
    │  └─ NameReserved           a system account's name, where workspaces have accounts
    ├─ OpenFailed(kind)          a forward that could not be connected or bound
    ├─ ProgramNotStarted(kind)   the workspace runs, the program does not start
    ├─ AppNotStarted             the workspace does not take the description of an app
    ├─ AppNotReady               (retryable) an app starts, has failed or was stopped
    ├─ BlueprintError
    │  ├─ BlueprintNotFound      none of that name for this user: exit 254
    │  ├─ BlueprintInvalid(where)
    │  ├─ BlueprintSourceFailed  (retryable)
    │  └─ RepositoryUnreachable  (retryable)
    ├─ WorkspaceError
    │  ├─ WorkspaceNotFound
    │  ├─ WorkspaceStartFailed   (retryable)
    │  │  └─ WorkspaceUnstartable
    │  ├─ ReadyTimeout           (retryable)
    │  ├─ StopTimeout            (retryable)
    │  └─ ClusterError           a request to Kubernetes failed
    │     ├─ ClusterForbidden
    │     ├─ ClusterRefused
    │     ├─ ClusterConflict     (retryable)
    │     ├─ ClusterNotFound
    │     └─ ClusterUnavailable  (retryable)
    │        └─ ClusterThrottled (retryable)
    ├─ UpstreamError
    │  ├─ Unreachable            (retryable)
    │  │  └─ Draining            takes no new work, because it is being stopped
    │  ├─ Incompatible
    │  └─ UpstreamLost           (retryable)
    ├─ IdentityError             the directory cannot do what an operator asked
    │  ├─ UserNotFound
    │  ├─ UserExists
    │  ├─ KeyNotFound
    │  └─ KeyInvalid
    ├─ TrustError                certificates or keys of workspaces are not available (retryable)
    ├─ RecordingError            a recording cannot be made or read
    │  ├─ RecordingUnavailable   (retryable) a program is not started unrecorded: exit 254
    │  ├─ RecordingLost          (retryable) a program is not left running unrecorded: exit 254
    │  └─ RecordingNotFound
    ├─ StoreError                the identity store cannot answer
    │  ├─ DatabaseMissing        there is none yet
    │  └─ SchemaOutdated         an older schema, until a proxy of this release starts
    ├─ StateError                state that replicas share cannot be changed
    │  ├─ StateUnavailable       (retryable)
    │  ├─ StateConflict
    │  └─ StateRefused
    └─ SettingsError             start-up only; process exit 78

`str(exc)` is for the operator's log. `user_message` is for the user at the terminal and never
holds a secret, a path of this machine or a traceback. Any other exception is a bug.
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
    """A named failure; `code` is stable, dotted and unique, and serves as a metric label."""

    code: ClassVar[str] = "internal"
    exit_status: int = EXIT_LINK
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, user_message: str | None = None) -> None:
        super().__init__(message)
        self._user_message = user_message

    @property
    def user_message(self) -> str:
        """Return one sentence for the user, without trailing newline."""
        return self._user_message or str(self)


class SettingsError(FairleadError):
    """Unusable settings; the message lists every problem with its path."""

    code = "settings"
    exit_status = EXIT_CONFIG


def exit_status_of(exc: BaseException) -> int:
    """Return the exit status by which a script knows the failure: 126, 127, 254, or 255 for the rest."""
    return exc.exit_status if isinstance(exc, FairleadError) else EXIT_LINK


def user_sentence(exc: BaseException, reference: str) -> str:
    """Return the sentence that tells the user the failure; `reference` finds the rest in the log.

    A bug (any exception but a FairleadError) is called an internal error and nothing else.
    """
    if not isinstance(exc, FairleadError):
        return f"internal error (reference {reference})"
    hint = "; trying again may help" if exc.retryable else ""
    return f"{exc.user_message}{hint} (reference {reference})"
