"""A bus inside one process, used without NATS; it has the subjects and wildcards of NATS."""

from proxy.events import subjects
from proxy.events.publisher import Counters, Mailbox, Message, Subscription, render
from proxy.events.schema import Event


class InProcessBus:
    """A bus that passes events to the readers of this process; see publisher.Bus.

    An event without a reader is lost and counts as published, as with NATS.
    """

    def __init__(self, *, proxy_id: str, subscription_queue_size: int = 1_000) -> None:
        self.counters = Counters()
        self._proxy_id = proxy_id
        self._size = subscription_queue_size
        self._mailboxes: list[Mailbox] = []
        self._closed = False

    @property
    def pending(self) -> int:
        """Return 0: no event waits."""
        return 0

    @property
    def connected(self) -> bool:
        """Return True until the bus is closed."""
        return not self._closed

    def start(self) -> None:
        """Do nothing; see publisher.Bus."""

    def publish(self, event: Event) -> None:
        """See publisher.Publisher."""
        item = render(event, self._proxy_id, self.counters)
        if item is None:
            return
        if self._closed:
            self.counters.dropped += 1
            return
        for mailbox in self._mailboxes:
            if subjects.matches(mailbox.pattern, item.subject):
                mailbox.put(Message(item.subject, item.data))
        self.counters.published += 1

    def subscribe(self, pattern: str) -> Subscription:
        """See publisher.Bus."""
        subjects.check_pattern(pattern)
        mailbox = Mailbox(pattern, self._size, self._mailboxes.remove)
        self._mailboxes.append(mailbox)
        mailbox.went_live()
        if self._closed:
            mailbox.close()
        return mailbox

    async def close(self, flush_timeout_s: float) -> None:
        """See publisher.Bus; returns at once."""
        self._closed = True
        for mailbox in tuple(self._mailboxes):
            mailbox.close()
