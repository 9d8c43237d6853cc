from proxy.protection.credit import MAX_SOURCES, Credit


def test_it_is_earned_and_lost_again() -> None:
    credit = Credit(100)
    assert not credit.has("a", 0)
    credit.earn("a", 0)
    assert credit.has("a", 100)
    assert not credit.has("a", 101)
    assert len(credit) == 0


def test_the_oldest_goes_when_there_are_too_many() -> None:
    credit = Credit(100)
    for number in range(MAX_SOURCES):
        credit.earn(str(number), 0)
    credit.earn("0", 1)
    credit.earn("one more", 1)
    assert len(credit) == MAX_SOURCES
    assert credit.has("0", 1)
    assert not credit.has("1", 1)
