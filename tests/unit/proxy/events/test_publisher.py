"""The bounded queues: what is dropped is the oldest, and is counted."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.events.publisher import Counters, Gap, Mailbox, Message, Outbox, Rendered


def item(number: int) -> Rendered:
    return Rendered("fairlead.x", str(number), b"")


def test_a_full_outbox_drops_the_oldest() -> None:
    outbox = Outbox(3)
    assert [outbox.put(item(number)) for number in range(5)] == [True, True, True, False, False]
    assert [one.id for one in outbox.take(10)] == ["2", "3", "4"]
    assert outbox.counters == Counters(dropped=2)


def test_what_was_not_acknowledged_goes_back_in_order_and_counts_as_oldest() -> None:
    outbox = Outbox(3)
    for number in range(3):
        outbox.put(item(number))
    outbox.take(3)
    outbox.put(item(3))
    outbox.put(item(4))
    assert len(outbox) == 5
    assert not outbox.settle(published=["1"], failed=[])
    assert [one.id for one in outbox.take(10)] == ["2", "3", "4"]
    assert outbox.counters == Counters(published=1, dropped=1)


@given(
    st.integers(1, 8),
    st.lists(st.one_of(st.just("put"), st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)))),
)
def test_every_event_is_in_exactly_one_count(size: int, steps: list[str | tuple[int, int, int]]) -> None:
    outbox, given_count = Outbox(size), 0
    for step in steps:
        if isinstance(step, str):
            outbox.put(item(given_count))
            given_count += 1
        else:
            taken, acknowledged, refused = step
            ids = [one.id for one in outbox.take(taken)]
            assert ids == sorted(ids, key=int)
            outbox.settle(published=ids[:acknowledged], failed=ids[acknowledged : acknowledged + refused])
        counters = outbox.counters
        assert len(outbox) <= size
        assert given_count == counters.published + counters.dropped + counters.failed + len(outbox)
    left = len(outbox)
    assert outbox.drop_all() == left
    assert len(outbox) == 0


async def test_a_mailbox_tells_of_a_gap_before_what_came_after_it() -> None:
    mailbox = Mailbox("fairlead.>", 2, lambda _: None)
    for number in range(3):
        mailbox.put(Message("fairlead.x", str(number).encode()))
    assert await anext(mailbox) == Gap(1)
    assert await anext(mailbox) == Message("fairlead.x", b"1")
    mailbox.put_gap()
    assert await anext(mailbox) == Gap(None)
    assert await anext(mailbox) == Message("fairlead.x", b"2")
