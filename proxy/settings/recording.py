"""Settings of recordings: the recorded programs, the storage, and the reaction to its failure.

Secrets stand in files, never here. Encryption at rest is the storage's business.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proxy.settings.base import Audience, Section

_Seconds = Annotated[float, Field(gt=0, le=3_600)]
_Bytes = Annotated[int, Field(ge=4_096, le=4 * 1024**3)]

RecordKind = Literal["shell", "exec", "sftp", "forward"]
"""What can be recorded. A command with a terminal counts as a shell too: `ssh -t host bash` is one."""

OnFailure = Literal["continue", "refuse"]
"""`continue`: the program runs on, and the recording says what is missing. `refuse`: no program runs
unrecorded."""

Days = Annotated[int, Field(ge=1, le=36_500)]


class RecordingRule(Section):
    """Applies where every list that is not empty has a match; `*` and `?` stand for characters."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """The user is in one of these."""
    blueprints: tuple[str, ...] = ()
    record: tuple[RecordKind, ...] = ("shell", "exec", "sftp", "forward")
    """Empty: nothing, unless the blueprint itself says so."""
    input: bool = False
    """Record what is typed as well, passwords included."""
    on_failure: OnFailure = "continue"
    retention_days: Days | None = None
    """Deleted this long after their end; None takes the section's."""


class S3Settings(Section):
    """A bucket of an S3-compatible store; needs the `s3` extra."""

    bucket: str = ""
    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+/)*$")] = ""
    """Before every name; empty or ending in a slash."""
    endpoint: str = ""
    """`https://host[:port]` of a store that is not AWS."""
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key_file: Path | None = None
    """Empty, both: the credentials that this machine's or pod's identity gets."""
    session_token_file: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.access_key_id) != (self.secret_access_key_file is not None):
            raise ValueError("access_key_id and secret_access_key_file go together")
        return self


class RecordingSettings(Section):
    """Nothing is recorded unless a rule or a blueprint says so."""

    rules: tuple[RecordingRule, ...] = ()
    """The first that matches counts. A blueprint can add to what it says, never take away."""
    on_failure: OnFailure = "continue"
    """For what only a blueprint asks to record."""
    retention_days: Days | None = None
    """None keeps recordings for ever."""

    store: Literal["directory", "s3"] = "directory"
    directory: Path | None = None
    """Default `<home>/recordings`; made with mode 0700, files with 0600."""
    s3: S3Settings = S3Settings()
    signing_key_file: Path | None = None
    """Ed25519 in PKCS #8 PEM, the same for all replicas; default `<home>/recording_key`, made when there
    is none."""
    trusted_key_files: tuple[Path, ...] = ()
    """Public keys in PEM that signed earlier recordings."""

    owner_may_view: bool = False
    """Whether users see their own recordings in the portal. Off: a recording is evidence, and shows
    a recorded user what it misses."""
    viewers: Audience = Audience()
    """Users who see all recordings in the portal."""

    exec_output_bytes: Annotated[int, Field(ge=0, le=2**50)] = 4 * 1024 * 1024
    """Output of one program without a terminal that is kept; the rest, and what is not text, is counted."""
    buffer_bytes: _Bytes = 4 * 1024 * 1024
    """Of one recording that may wait for storage."""
    total_buffer_bytes: _Bytes = 256 * 1024 * 1024
    """Of all of one process together."""
    block_bytes: _Bytes = 1024 * 1024
    """Recordings are stored in blocks of about this size."""
    flush_interval_s: _Seconds = 5
    """No byte waits longer for its block to fill: the most that a killed proxy loses."""
    max_delay_s: _Seconds = 1
    """A full buffer holds a program's output up for this long at most; storage that takes nothing
    meanwhile is down."""
    write_timeout_s: _Seconds = 10
    """One operation of the storage."""
    retry_interval_s: _Seconds = 2
    """Between attempts at storage that is down."""
    refuse_after_s: _Seconds = 10
    """Storage may be down this long before `refuse` ends running programs; a full buffer ends them sooner."""
    open_timeout_s: _Seconds = 10
    """Under `refuse`, the first block must be stored within this time, or the program does not start."""
    close_timeout_s: _Seconds = 30
    """What waits when a program ends has this long to be stored, behind the person's back."""
    sweep_interval_s: Annotated[float, Field(ge=1, le=86_400)] = 3_600
    sweep_batch_size: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Recordings looked at in one sweep for expired ones."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.block_bytes > self.buffer_bytes:
            raise ValueError("block_bytes must not exceed buffer_bytes")
        if self.buffer_bytes > self.total_buffer_bytes:
            raise ValueError("buffer_bytes must not exceed total_buffer_bytes")
        if self.store == "s3" and not self.s3.bucket:
            raise ValueError("s3.bucket is needed for store: s3")
        return self
