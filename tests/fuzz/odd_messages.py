"""Any message with any field odd, as data: made anew for the channels of each server that it is sent to."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.wire.messages import CHANNEL_REQUEST, Handler, rows
from tests.wire.oddities import rows_of

NEVER_OPENED = (7_777, 2**31, 2**32 - 1)
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 35_000)
_BYTES = b"\x00\x01\x02\x09\x7f\x80\xff aZ0"
"""No byte by which a command would become another one: both servers run as whoever runs the tests."""
_LONG = 300

HANDLERS = sorted(row.handler for row in rows() if row.handler.number)
_OF_CHANNELS = [handler for handler in HANDLERS if handler.number in range(93, 101)]


@dataclass(frozen=True)
class Cut:
    """A payload that ends early."""

    at: int

    def __call__(self, payload: bytes) -> bytes:
        return payload[: self.at % (len(payload) + 1)]


@dataclass(frozen=True)
class Longer:
    """A payload with something behind its last field."""

    tail: bytes

    def __call__(self, payload: bytes) -> bytes:
        return payload + self.tail


@dataclass(frozen=True)
class Replaced:
    """A payload in which some bytes are others: a number, a length, a flag or text."""

    at: int
    by: bytes

    def __call__(self, payload: bytes) -> bytes:
        at = self.at % (len(payload) + 1)
        return payload[:at] + self.by + payload[at + len(self.by) :]


@dataclass(frozen=True)
class Inserted:
    """A payload in which every field behind one place is further on."""

    at: int
    what: bytes

    def __call__(self, payload: bytes) -> bytes:
        at = self.at % (len(payload) + 1)
        return payload[:at] + self.what + payload[at:]


@dataclass(frozen=True)
class Other:
    """Another payload altogether."""

    payload: bytes

    def __call__(self, payload: bytes) -> bytes:
        del payload
        return self.payload


Change = Cut | Longer | Replaced | Inserted | Other


@dataclass(frozen=True)
class Odd:
    """One message: which, for which channel, what is odd about it, how often it is sent."""

    handler: Handler
    channel: int
    """Which of those that were opened; one of NEVER_OPENED where it is negative, or nothing was opened."""
    changes: tuple[Change, ...] = ()
    times: int = 1

    def packets(self, opened: list[int]) -> list[tuple[int, bytes]]:
        """Return the packets for a server that gave these numbers to its channels."""
        if self.channel < 0 or not opened:
            channel = NEVER_OPENED[len(self.changes) % len(NEVER_OPENED)]
        else:
            channel = opened[self.channel % len(opened)]
        payload = rows_of(self.handler)(channel).payload
        for change in self.changes:
            payload = change(payload)
        return [(self.handler.number, payload)] * self.times


_places = st.integers(0, 120)
_odd_bytes = st.lists(st.sampled_from(_BYTES), max_size=24).map(bytes)
_changes = st.one_of(
    st.builds(Cut, _places),
    st.builds(Longer, _odd_bytes | st.just(b"\xff" * _LONG)),
    st.builds(Replaced, _places, st.sampled_from(_NUMBERS).map(lambda number: number.to_bytes(4, "big"))),
    st.builds(Replaced, _places, st.sampled_from(_BYTES).map(lambda byte: bytes([byte]))),
    st.builds(Inserted, _places, _odd_bytes),
    st.builds(Other, _odd_bytes),
)


def _odd(handlers: list[Handler]) -> st.SearchStrategy[Odd]:
    return st.builds(
        Odd,
        st.sampled_from(handlers),
        st.integers(-1, 3),
        st.just(()) | st.lists(_changes, min_size=1, max_size=3).map(tuple),
        st.integers(1, 3),
    )


def messages() -> st.SearchStrategy[Odd]:
    """Give any message; those of channels and their requests come more often than the numbers nobody uses."""
    named = [handler for handler in HANDLERS if handler.name]
    requests = [handler for handler in named if handler.number == CHANNEL_REQUEST]
    return st.one_of(_odd(_OF_CHANNELS), _odd(named), _odd(requests), _odd(HANDLERS))
