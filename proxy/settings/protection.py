"""Settings of protection: who must not get in, and how much of us those may have who are not in yet."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Seconds = Annotated[float, Field(gt=0, le=86_400 * 365)]


class ProtectionSettings(BaseModel):
    """Limits for addresses; see docs/protection.md for how they work together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    credit_s: _Seconds = 8 * 3_600
    """An address from which a known user logged in counts as theirs for this long."""
    strangers_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the time of a process, what handshakes from all other addresses together may take."""
