"""What is kept cannot be read or changed: the directory, recordings, what replicas share."""

from proxy.errors import EXIT_REFUSED, FairleadError


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


class DatabaseMissing(StoreError):
    """There is no database, or one without tables of ours: nothing was ever kept in it."""

    code = "store.missing"


class SchemaOutdated(StoreError):
    """The database has the schema of an older release; a proxy that starts brings it up to date."""

    code = "store.schema_outdated"


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
