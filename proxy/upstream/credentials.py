"""The interface to credentials for links over TCP; `trust` implements it."""

from typing import Protocol

from proxy.model import TlsMaterial


class Credentials(Protocol):
    """The source of the newest credentials; fast enough for every call."""

    def material(self) -> TlsMaterial:
        """Return the material for a new connection: the same object as long as nothing is newer.

        Raises: TrustError.
        """

    def token(self, workspace: str, user: str, account: str) -> str:
        """Return a bearer token.

        An empty `account` leaves the choice to the workspace. Raises: TrustError.
        """
