from proxy.protection.failures import Failures, length_s, threshold
from proxy.protection.startups import Rate, Startups


def test_failures_are_counted_within_the_window_only() -> None:
    failures = Failures(window_s=60, max_sources=10, max_failures=5)
    assert [failures.add("a", now) for now in (0, 10, 20)] == [1, 2, 3]
    assert failures.add("b", 20) == 1
    assert failures.add("a", 70) == 3  # that of second 0 is over
    failures.forget("a")
    assert failures.add("a", 71) == 1


def test_no_stranger_makes_the_counts_grow() -> None:
    failures = Failures(window_s=60, max_sources=100, max_failures=5)
    for number in range(10_000):
        failures.add(str(number), 0)
    assert len(failures) == 100
    for _ in range(10_000):
        count = failures.add("a", 0)
    assert count == 5
    failures.add("later", 100)
    assert len(failures) == 1


def test_whoever_comes_again_has_fewer_tries_and_stays_out_longer() -> None:
    assert [threshold(10, offences) for offences in (0, 1, 2, 3, 4, 99)] == [10, 5, 2, 1, 1, 1]
    assert [length_s((60.0, 300.0), offences) for offences in (0, 1, 2, 99)] == [60, 300, 300, 300]


def startups(chance: float = 1.0) -> Startups:
    return Startups(begin=10, percent=30, full=20, per_source=3, chance=lambda: chance)


def test_one_source_has_its_share_of_those_who_are_not_in() -> None:
    counts = startups()
    assert [counts.enter("a", is_allowed=False) for _ in range(4)] == ["", "", "", "source_full"]
    assert counts.enter("b", is_allowed=False) == ""
    counts.leave("a")
    assert counts.enter("a", is_allowed=False) == ""
    assert counts.enter("a", is_allowed=True) == ""
    assert len(counts) == 5


def test_all_together_are_dropped_by_a_chance_that_rises() -> None:
    lucky, unlucky, middling = startups(0.999_999), startups(0.299), startups(0.6)

    def fill(counts: Startups) -> int:
        number = 0
        while not counts.enter(str(number), is_allowed=True):
            number += 1
        assert counts.enter("one more", is_allowed=True) == "full"
        return number

    assert (fill(unlucky), fill(middling), fill(lucky)) == (10, 15, 20)


def test_a_flood_of_strangers_keeps_no_known_user_out() -> None:
    counts = startups()
    while not counts.enter(str(len(counts)), is_allowed=True):
        pass
    assert counts.enter("known", is_allowed=False, is_known=True) == ""
    assert [counts.enter("known", is_allowed=False, is_known=True) for _ in range(3)] == [
        "",
        "",
        "source_full",
    ]


def test_a_rate_lets_a_burst_through_and_then_so_many_a_minute() -> None:
    rate = Rate(per_minute=60, burst=3, max_sources=2)
    assert [rate.take("a", 0) for _ in range(4)] == [True, True, True, False]
    assert rate.take("b", 0)
    assert [rate.take("a", 1.5) for _ in range(2)] == [True, False]
    rate.take("c", 2)
    assert len(rate) == 2
