"""Users who have logged in and want into a workspace of theirs."""

from proxy.model import ConnId, KeyProof, Peer, Principal, User, Visit
from proxy.userstring import parse

KEY = b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)
PEER = Peer(ConnId("conn-1"), "192.0.2.1", 40_000, "192.0.2.2", 22)


def visit_of(text: str, user: User | None = None, peer: Peer = PEER) -> Visit:
    """Make the visit of a user who logged in with the user string `text`, with the record `user`."""
    address = parse(text)
    actor = user or User(address.user)
    return Visit(Principal(peer, actor, KeyProof(KEY)), actor, address)


def with_user(visit: Visit, user: User) -> Visit:
    """Return the visit as of a user whose record changed."""
    principal = Principal(visit.principal.client, user, visit.principal.credential)
    return Visit(principal, user, visit.address)
