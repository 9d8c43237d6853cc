"""Values that we issued, and no others."""

from proxy.http.sessions import Sessions, digest, is_of, new_value
from tests.fakes.provider import Leaping


def test_only_an_issued_value_stands_for_anything() -> None:
    sessions: Sessions[str] = Sessions(10)
    value = sessions.begin("alice")
    assert sessions.find(value) == "alice"
    assert value in sessions
    for other in ("", "x" * 43, digest(value), value + "x", value[:-1], "\udc80"):
        assert sessions.find(other) is None
        assert other not in sessions
    assert len(sessions) == 1


def test_a_sign_in_ends_the_value_before_it() -> None:
    sessions: Sessions[str] = Sessions(10)
    before = sessions.begin("")
    after = sessions.renew(before, "alice")
    assert after != before
    assert (sessions.find(before), sessions.find(after)) == (None, "alice")
    assert sessions.find(sessions.renew("made up", "bob")) == "bob"
    assert len(sessions) == 2


def test_a_value_ends_by_itself() -> None:
    leaping = Leaping()
    sessions: Sessions[None] = Sessions(10, life_s=60, clock=leaping.clock)
    value = sessions.begin(None)
    leaping.time += 59
    assert value in sessions
    leaping.time += 1
    assert value not in sessions


def test_the_oldest_goes_when_there_are_too_many() -> None:
    sessions: Sessions[int] = Sessions(3)
    values = [sessions.begin(number) for number in range(5)]
    assert [sessions.find(value) for value in values] == [None, None, 2, 3, 4]


def test_sessions_of_one_subject_end_together() -> None:
    sessions: Sessions[str] = Sessions(10)
    values = [sessions.begin(name) for name in ("alice", "bob", "alice")]
    sessions.end_where(lambda name: name == "alice")
    assert [sessions.find(value) for value in values] == [None, "bob", None]
    sessions.end(values[1])
    sessions.end("made up")
    assert len(sessions) == 0


def test_no_value_is_kept() -> None:
    sessions: Sessions[None] = Sessions(10)
    value = sessions.begin(None)
    assert value not in repr(vars(sessions))


def test_values_are_random_and_fit_into_a_cookie() -> None:
    values = {new_value() for _ in range(100)}
    assert len(values) == 100
    assert {len(value) for value in values} == {43}
    value = values.pop()
    assert is_of(value, digest(value))
    assert not is_of(values.pop(), digest(value))
    assert not is_of("", digest(value))
