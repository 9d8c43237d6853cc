"""When a loss counts as a removal in the end, and when it never does."""

import pytest
import structlog.testing

from proxy.errors.stores import StoreError
from proxy.identity.auditor import Auditor
from proxy.identity.directory import Census

WHOLE = Census(100, 200, 100, 200)


class FakeDirectory:
    """Holds as many rows as the test says."""

    def __init__(self) -> None:
        self.census = WHOLE
        self.failure: StoreError | None = None
        self.accepted: list[Census | None] = []

    async def audit(self, most: float) -> Census:
        del most
        if self.failure is not None:
            raise self.failure
        return self.census

    async def accept(self, seen: Census | None = None) -> Census:
        self.accepted.append(seen)
        found = self.census
        self.census = Census(found.users, found.keys, found.users, found.keys)
        return found


class Scene:
    def __init__(self) -> None:
        self.directory = FakeDirectory()
        self.now_s = 0.0
        self.auditor = Auditor(
            self.directory,
            census_s=10,
            recheck_s=2,
            vanished_s=60,
            max_vanished_share=0.5,
            now=lambda: self.now_s,
        )

    async def look_at(self, now_s: float, census: Census | None = None) -> str:
        self.now_s = now_s
        self.directory.census = census or self.directory.census
        await self.auditor.look()
        return self.auditor.problem


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_whole_directory_is_no_problem(scene: Scene) -> None:
    assert await scene.look_at(0) == ""
    assert await scene.look_at(1_000, Census(150, 300, 100, 200)) == ""
    assert scene.directory.accepted == []


async def test_a_minor_loss_counts_as_a_removal_once_it_has_not_changed_for_a_while(scene: Scene) -> None:
    lost = Census(98, 200, 100, 200)
    assert await scene.look_at(0, lost) == (
        "the directory holds 98 of 100 users, and no command removed the others"
    )
    assert await scene.look_at(59) != ""
    assert scene.directory.accepted == []
    assert await scene.look_at(60) == ""
    assert scene.directory.accepted == [lost]


async def test_a_loss_that_changes_is_waited_for_anew(scene: Scene) -> None:
    """Rows come back one by one."""
    for number in range(10):
        assert await scene.look_at(number * 59, Census(80 + number, 200, 100, 200)) != ""
    assert await scene.look_at(600, WHOLE) == ""
    assert await scene.look_at(700, Census(89, 200, 100, 200)) != ""
    assert await scene.look_at(759) != ""
    assert scene.directory.accepted == []


@pytest.mark.parametrize(
    "lost",
    [
        Census(0, 0, 1, 1),
        Census(1, 0, 1, 2),
        Census(49, 200, 100, 200),
        Census(100, 99, 100, 200),
        Census(0, 0, 100, 200),
    ],
)
async def test_the_loss_of_most_rows_never_counts_as_a_removal(scene: Scene, lost: Census) -> None:
    assert await scene.look_at(0, lost) != ""
    assert await scene.look_at(1_000_000) != ""
    assert scene.directory.accepted == []


async def test_half_of_the_rows_is_not_most_of_them(scene: Scene) -> None:
    assert await scene.look_at(0, Census(50, 100, 100, 200)) != ""
    assert await scene.look_at(60) == ""


async def test_an_outage_is_told_once_and_its_end_as_well(scene: Scene) -> None:
    scene.directory.failure = StoreError("down")
    with structlog.testing.capture_logs() as logs:
        for now_s in range(5):
            assert await scene.look_at(now_s) == "down"
        scene.directory.failure = None
        for now_s in range(5):
            assert await scene.look_at(now_s) == ""
    assert [entry["log_level"] for entry in logs] == ["warning", "info"]


async def test_an_outage_does_not_count_as_time_in_which_nothing_changed(scene: Scene) -> None:
    lost = Census(98, 200, 100, 200)
    await scene.look_at(0, lost)
    scene.directory.failure = StoreError("down")
    await scene.look_at(59)
    scene.directory.failure = None
    assert await scene.look_at(61, lost) != ""
    assert scene.directory.accepted == []
