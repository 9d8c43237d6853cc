"""A request to confirm a key in a browser, between whoever waits for it and the page that answers it."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from proxy.errors import FairleadError
from proxy.identity.profile import Profile
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.providers.base import About, Provider


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A signed-in person confirmed what a page showed."""

    profile: Profile
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request; good for one answer."""

    id: str = field(repr=False)
    uri: str = field(repr=False)
    code: str = field(repr=False)
    """Shown in the terminal and on the page, to be compared; typed nowhere."""
    provider: Provider
    about: About
    done: "asyncio.Future[Confirmation]" = field(repr=False)
    """Also ends with ApprovalDenied, or whatever the provider failed with."""
    outcome: "asyncio.Future[FairleadError | None]" = field(repr=False)
    """Result of the login after a confirmation, for the page: None for a user who is let in, or why not."""

    def tell(self, outcome: FairleadError | None) -> None:
        """Set the outcome. Twice is fine; the first counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Confirmer(Protocol):
    """Whoever serves the page."""

    def open(self, provider: Provider, about: About) -> Ticket:
        """Make a ticket that can be answered until it is closed."""

    def close(self, ticket: Ticket) -> None:
        """Forget a ticket; its page says that it is too late."""
