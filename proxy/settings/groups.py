"""Settings of groups: the validity of a provider's answer about an account, and its renewal."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from proxy.settings.base import Section

_DAY_S = 86_400
_Seconds = Annotated[float, Field(gt=0, le=_DAY_S * 365)]


class GroupSettings(Section):
    """Age of groups, refreshed from the provider that a user came by."""

    max_age_s: _Seconds = _DAY_S
    """Groups that were read longer ago end, and with them what they gave, live sessions included."""
    grace_s: Annotated[float, Field(ge=0, le=_DAY_S * 365)] = 3 * _DAY_S
    """Added to `max_age_s` while the provider does not answer: its outage takes no rights before that."""
    refresh_s: _Seconds = 900
    """Groups older than this are read again, at a login and while their user is connected; at most half of
    `max_age_s`. It is also the time after which the end of an account at its provider is noticed."""
    refresh_timeout_s: Annotated[float, Field(gt=0, le=300)] = 15
    """One refresh: token, profile and groups together."""
    login_wait_s: Annotated[float, Field(gt=0, le=60)] = 2
    """A login waits for a refresh this long while its groups still count, and `refresh_timeout_s` after."""
    parallel: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Accounts that one proxy reads at the same time because their users are connected."""
    ask_at_login: bool = True
    """A user whose groups ended, and whose provider gave nothing to refresh them with, approves again at the
    next login. False: such a user comes in without groups."""
    key_file: Path | None = None
    """Encrypts refresh tokens in the database: a key of 32 bytes in base64 on each line, the first encrypts,
    all decrypt; the same file for every replica. Default: made in `<home>` beside SQLite; with another
    database no token is kept without it."""

    @property
    def refresh_after_s(self) -> float:
        """Age in seconds from which groups are read again."""
        return min(self.refresh_s, self.max_age_s / 2)
