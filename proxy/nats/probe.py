"""A check of a NATS server: access, and the features that it offers. Creates nothing."""

from typing import NamedTuple

import nats.errors
import nats.js.errors

from proxy.nats.wire import NO_JETSTREAM, Wire
from proxy.settings.events import EventsSettings


class Answer(NamedTuple):
    """The features of a server."""

    says: str
    has_jetstream: bool


async def probe(settings: EventsSettings, url: str) -> Answer:
    """Connect and log in to one server, and return its features.

    Returns within twice `events.connect_timeout_s`. Raises: LinkFailed with the reason.
    """
    wire = _Probe(settings, url)
    try:
        await wire.open()
        return Answer(wire.says, wire.has_jetstream)
    finally:
        await wire.dispose()


class _Probe(Wire):
    """A connection that asks for the stream of events and ends."""

    def __init__(self, settings: EventsSettings, url: str) -> None:
        super().__init__(settings, url, lambda: None)
        self.says = "answers"
        self.has_jetstream = True

    async def open(self) -> None:
        await super().open()
        timeout_s = self._settings.connect_timeout_s
        if self._settings.delivery != "core":
            await self._within(self._find_stream, timeout_s, "no answer from JetStream")

    async def _find_stream(self) -> None:
        stream = self._settings.stream
        try:
            await self._client.jetstream().stream_info(stream)
        except nats.js.errors.NotFoundError:
            self.says = f"answers; stream {stream} does not exist yet, a proxy that starts makes it"
        except nats.js.errors.ServiceUnavailableError as exc:
            if exc.err_code not in NO_JETSTREAM:
                raise
            if self._settings.delivery == "stream":
                raise nats.errors.Error("no JetStream, and events.delivery is `stream`") from exc
            self.has_jetstream = False
            self.says = "answers, without JetStream: bans and live sessions are not shared"
        else:
            self.says = f"answers; stream {stream} is there"
