"""Requests to confirm a key in a browser, shared by the waiting flow and the page that answers."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from proxy.errors import FairleadError
from proxy.identity.profile import Profile
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.providers.base import ApprovalFacts, Provider


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A confirmation by a signed-in user on a page that showed the key."""

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
    about: ApprovalFacts
    done: "asyncio.Future[Confirmation]" = field(repr=False)
    """Also ends with ApprovalDenied, or with the provider's error."""
    outcome: "asyncio.Future[FairleadError | None]" = field(repr=False)
    """Result of the login after a confirmation, for the page: None for an admitted user, else the error."""

    def tell(self, outcome: FairleadError | None) -> None:
        """Set the outcome; later calls do nothing."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Confirmer(Protocol):
    """The server of the confirm page."""

    def open(self, provider: Provider, about: ApprovalFacts) -> Ticket:
        """Create a ticket that can be answered until it is closed."""

    def close(self, ticket: Ticket) -> None:
        """Close a ticket; its page then reports that it is too late."""
