"""What a link shows to a workspace over TCP, and what it expects to be shown; `trust` makes both."""

from typing import Protocol

from proxy.model import TlsMaterial


class Credentials(Protocol):
    """Gives what is newest; cheap enough to be asked for every call."""

    def material(self) -> TlsMaterial:
        """Give what a new connection is made with: the same object as long as nothing is newer.

        Raises: TrustError.
        """

    def token(self, workspace: str, user: str, account: str) -> str:
        """Give a bearer token; `account` "" leaves the choice to the workspace. Raises: TrustError."""
