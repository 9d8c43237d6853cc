"""Storage errors: the identity directory, recordings, and state that replicas share."""

from proxy.errors import EXIT_REFUSED, FairleadError


class IdentityError(FairleadError):
    """A request that the directory cannot fulfil; shown to operators, never to a client that logs in."""

    code = "identity"


class UserNotFound(IdentityError):
    """A user who is not in the directory."""

    code = "identity.user_not_found"


class UserExists(IdentityError):
    """A user who is in the directory already."""

    code = "identity.user_exists"


class KeyNotFound(IdentityError):
    """A key that the user does not have."""

    code = "identity.key_not_found"


class KeyInvalid(IdentityError):
    """An unusable public key: damaged, weak, or of another type than it claims."""

    code = "identity.key_invalid"


class RecordingError(FairleadError):
    """A request that the store of recordings cannot fulfil."""

    code = "recording"


class RecordingUnavailable(RecordingError):
    """A recording that cannot be made now, for a program that a rule forbids to run unrecorded."""

    code = "recording.unavailable"
    exit_status = EXIT_REFUSED
    retryable = True


class RecordingLost(RecordingError):
    """A recording that failed while such a program was running."""

    code = "recording.lost"
    exit_status = EXIT_REFUSED
    retryable = True


class RecordingNotFound(RecordingError):
    """A recording that does not exist."""

    code = "recording.not_found"


class StoreError(FairleadError):
    """An identity store that cannot answer."""

    code = "store"
    retryable = True


class DatabaseMissing(StoreError):
    """A database that does not exist, or has none of Fairlead's tables: nothing was ever stored in it."""

    code = "store.missing"


class SchemaOutdated(StoreError):
    """A database with the schema of an older release; a proxy that starts brings it up to date."""

    code = "store.schema_outdated"


class StateError(FairleadError):
    """A change of shared state that failed; the state as last known can still be read."""

    code = "state"


class StateUnavailable(StateError):
    """A store of shared state that does not answer; the change may have been made all the same."""

    code = "state.unavailable"
    retryable = True


class StateConflict(StateError):
    """An entry that another writer changed first."""

    code = "state.conflict"


class StateRefused(StateError):
    """A change that the store will never accept: too large, full, or not permitted."""

    code = "state.refused"
