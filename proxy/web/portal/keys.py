"""A user's own SSH keys: where each comes from, when it was used last, and its removal."""

from dataclasses import dataclass

from aiohttp import web

from proxy.errors.stores import KeyNotFound
from proxy.events import schema
from proxy.events.publisher import Publisher
from proxy.identity.directory import Directory, StoredKey
from proxy.web.portal.desk import Desk
from proxy.web.sessions import Held


@dataclass(frozen=True, slots=True)
class Keys:
    """The page of keys and its form."""

    desk: Desk
    directory: Directory
    publisher: Publisher

    def serve(self) -> None:
        """Add the routes."""
        self.desk.get("/keys", self._page)
        self.desk.post("/keys/revoke", self._revoke)

    async def _page(self, request: web.Request, held: Held) -> web.StreamResponse:
        keys = await self.directory.keys_of(held.user.name)
        proof = held.record.proof
        return self.desk.page(
            request, held, "keys.html", keys=keys, this="" if proof is None else proof.fingerprint
        )

    async def _revoke(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        user, fingerprint = held.user.name, form.get("fingerprint", "")
        self.desk.require(self.desk.rights.may_remove_key(held.user, user))
        stored = await self._find(user, fingerprint)
        await self.directory.remove_key(user, fingerprint)
        self.publisher.publish(
            schema.KeyRemoved(
                user=user,
                actor=user,
                fingerprint=fingerprint,
                key_type=stored.key.algorithm,
                origin=stored.origin,
            )
        )
        self.desk.note(held, "revoke key", fingerprint=fingerprint)
        return self.desk.forms.done(
            request, "/keys", f"The key {fingerprint} is revoked. Its sessions end now."
        )

    async def _find(self, user: str, fingerprint: str) -> StoredKey:
        for stored in await self.directory.keys_of(user):
            if stored.key.fingerprint == fingerprint:
                return stored
        raise KeyNotFound(f"{user} has no key {fingerprint}", user_message="you have no such key")
