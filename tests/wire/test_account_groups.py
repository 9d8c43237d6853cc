"""What groups gave ends with them, live sessions included; an outage of the provider ends nothing at once."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.provider import HANG_UP
from tests.wire.forge import START, Forge, open_forge
from tests.wire.newcomer import WIDE_OPEN, Attempt, House, Newcomer, make_key, open_house
from tests.wire.peers import until

MAX_AGE_S, GRACE_S = 7_200, 3_600
STAFF = ("-o", "User=alice+staff")


class World:
    """Alice came in by a GitLab whose groups the test decides; `staff` is a blueprint for one of them."""

    def __init__(self, house: House, forge: Forge, alice: Newcomer) -> None:
        self.house = house
        self.forge = forge
        self.alice = alice

    def change(self, statement: str, *values: object) -> None:
        """Change the database beside the proxy."""
        with closing(sqlite3.connect(self.house.fairlead.home / "fairlead.db", timeout=60)) as connection:
            connection.execute(statement, values)
            connection.commit()

    def grow_old(self, seconds: float) -> None:
        """Let so much time pass since Alice's groups were read."""
        moment = datetime.now(UTC) - timedelta(seconds=seconds)
        self.change("UPDATE users SET groups_at = ?", moment.strftime("%Y-%m-%d %H:%M:%S.%f"))

    def is_failure_noted(self) -> bool:
        with closing(sqlite3.connect(self.house.fairlead.home / "fairlead.db", timeout=60)) as connection:
            return connection.execute("SELECT provider_failed_at FROM users").fetchone()[0] is not None

    def lose_grant(self) -> None:
        """Take the grant away while no refresh uses it: one under way would still read the groups."""
        until(lambda: not self._grants_left(), "no refresh holds the grant")

    def _grants_left(self) -> int:
        self.change("DELETE FROM grants WHERE lease IS NULL")
        with closing(sqlite3.connect(self.house.fairlead.home / "fairlead.db", timeout=60)) as connection:
            return int(connection.execute("SELECT count(*) FROM grants").fetchone()[0])

    def stays(self, *options: str) -> Attempt:
        """Begin a session that stays until it is ended."""
        attempt = Attempt(
            self.alice.command("echo here; sleep 600", options=["-o", "BatchMode=yes", *options])
        )
        until(lambda: attempt.out == b"here\n", lambda: f"the session is there: {attempt.err}")
        return attempt

    def command(self, *options: str) -> tuple[int, str]:
        """Run a command without anything to be asked."""
        with Attempt(self.alice.command("echo in", options=["-o", "BatchMode=yes", *options])) as attempt:
            status = attempt.wait()
            assert (status == 0) is (attempt.out == b"in\n")
            return status, attempt.err


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    key = make_key(directory / "listed")
    with open_forge([key]) as forge:
        settings = {
            "providers": [forge.provider],
            "onboarding": {**WIDE_OPEN, "otherwise": "allow"},
            "keys": {"fresh_s": 0.001},
        }
        env = {
            "FAIRLEAD_GROUPS__MAX_AGE_S": str(MAX_AGE_S),
            "FAIRLEAD_GROUPS__GRACE_S": str(GRACE_S),
            "FAIRLEAD_GROUPS__REFRESH_S": "0.4",
            "FAIRLEAD_IDENTITY__RECHECK_S": "0.2",
        }
        with open_house(directory / "house", settings, env) as house:
            staff = house.fairlead.home / "blueprints" / "staff.yaml"
            staff.write_text("name: staff\naccess: {groups: [wonderland]}\n")
            forge.approve()
            yield World(house, forge, Newcomer(house, "alice", directory, [key]))


@pytest.fixture
def world(opened: World) -> World:
    """Alice came in just now, and nothing is wrong with her provider."""
    opened.forge.live()
    # Fewer are expected first: rows that are gone without a record would be a directory that was lost.
    opened.change("UPDATE installation SET users = 0, keys = 0")
    for table in ("grants", "revoked_keys", "removals", "keys", "users"):
        opened.change(f"DELETE FROM {table}")
    with opened.alice.log_in() as attempt:
        attempt.entered()
    until(lambda: opened.command(*STAFF)[0] == 0, "the blueprint is there")
    return opened


def test_who_left_an_organisation_loses_what_it_gave_and_nothing_else(world: World) -> None:
    with world.stays(*STAFF) as staff, world.stays() as plain:
        world.forge.groups = ["elsewhere"]
        assert staff.wait() != 0
        assert "your groups do not open this workspace any more" in staff.err
        status, said = world.command(*STAFF)
        assert status != 0
        assert "there is no blueprint 'staff'" in said
        assert world.command()[0] == 0
        assert plain.process.poll() is None, plain.err
    world.forge.groups = ["wonderland"]
    until(lambda: world.command(*STAFF)[0] == 0, "who is a member again is let in again")


def test_groups_that_are_too_old_end_a_live_session(world: World) -> None:
    """Nothing refreshes them: the provider gave nothing to ask with."""
    world.lose_grant()
    with world.stays(*STAFF) as staff, world.stays() as plain:
        world.grow_old(MAX_AGE_S + 60)
        assert staff.wait() != 0
        assert "your groups do not open this workspace any more" in staff.err
        assert plain.process.poll() is None, plain.err


def test_an_outage_keeps_people_in_for_the_grace(world: World) -> None:
    with world.stays(*STAFF) as staff, world.stays() as plain:
        world.forge.die()
        until(world.is_failure_noted, "the outage is noticed")
        world.grow_old(MAX_AGE_S + GRACE_S - 600)
        assert world.command(*STAFF) == (0, "")
        assert staff.process.poll() is None, staff.err
        world.grow_old(MAX_AGE_S + GRACE_S + 60)
        assert staff.wait() != 0
        assert world.command(*STAFF)[0] != 0
        assert world.command() == (0, ""), "nobody is locked out"
        assert plain.process.poll() is None, plain.err


def test_without_a_grant_the_next_login_asks_for_an_approval(world: World) -> None:
    world.lose_grant()
    world.grow_old(MAX_AGE_S + 60)
    status, said = world.command(*STAFF)
    assert status == 255
    assert "what gitlab said about your account is too old to count. Your key is fine" in said
    with world.alice.log_in(options=STAFF) as attempt:
        shown = attempt.shown()
        said = attempt.entered()
    assert "is not known here yet" not in said
    assert shown.code in said
    assert world.command(*STAFF) == (0, "")


def test_the_end_of_an_account_ends_its_sessions_and_its_key_until_it_is_approved(world: World) -> None:
    with world.stays() as plain:
        world.forge.block()
        assert plain.wait() != 0
        assert "gitlab does not vouch for this account any more" in plain.err
    assert world.command()[0] == 255
    world.forge.live()
    with world.alice.log_in() as attempt:
        attempt.shown()
        attempt.entered()
    assert world.command() == (0, "")


def test_an_ended_account_stays_out_while_its_provider_is_away(world: World) -> None:
    with world.stays() as plain:
        world.forge.block()
        assert plain.wait() != 0
    world.forge.die()
    with world.alice.log_in() as attempt:
        assert "gitlab does not answer at the moment" in attempt.refused()


def test_an_approval_that_cannot_be_begun_locks_nobody_out(world: World) -> None:
    """The provider answers, but gives no code: the key lets in, and the groups give nothing."""
    world.lose_grant()
    world.grow_old(MAX_AGE_S + 60)
    world.forge.server.on(START, HANG_UP)
    assert world.command()[0] == 0
    assert world.command(*STAFF)[0] != 0
