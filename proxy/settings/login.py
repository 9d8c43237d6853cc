"""Settings of logins."""

from typing import Annotated

from pydantic import Field, model_validator

from proxy.settings.base import Seconds, Section


class LoginSettings(Section):
    """Budgets of one login."""

    key_exchange_timeout_s: Seconds = 20
    """From accept to the end of the first key exchange: no human is involved."""
    timeout_s: Seconds = 120
    """From the end of key exchange to success: passphrases and hardware keys need a person."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 20
    """Keys that may be refused on one connection; an ssh-agent may hold many before the right one."""
    max_failures: Annotated[int, Field(ge=1, le=100)] = 6
    """Failures other than refused keys that end a connection, as `MaxAuthTries` of sshd: methods that are not
    offered, prompts, services and key exchanges that are asked for again. The first `none` is free."""

    @model_validator(mode="after")
    def _ordered(self) -> "LoginSettings":
        if self.key_exchange_timeout_s > self.timeout_s:
            raise ValueError("key_exchange_timeout_s must not exceed timeout_s")
        return self
