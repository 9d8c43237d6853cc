"""What a client may repeat before its login, measured beside a real `sshd`."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.wire.direct import Place, fairlead_place
from tests.wire.harness import Fairlead
from tests.wire.raw import REQUEST, SERVICE_REQUEST, RawClient, Said

SETTINGS = {"FAIRLEAD_FRONT_DOOR__DEV_ON_LOOPBACK": "true"}
MOST = 400
"""Requests after which a server counts as one that never has enough."""

Ask = Callable[[RawClient], None]


@pytest.fixture
def ours(fairlead: Fairlead) -> Place:
    return fairlead_place(fairlead)


def _answers(place: Place, ask: Ask, *, first: Ask | None = None) -> tuple[list[Said], Said]:
    """Ask until the server has enough; gives its answers and its last word."""
    answers: list[Said] = []
    with closing(RawClient(place.port)) as client:
        if first is not None:
            first(client)
            answers.append(client.hear())
        while len(answers) < MOST:
            ask(client)
            said = client.hear()
            if said[0] in ("disconnect", "gone"):
                return answers, said
            answers.append(said)
    return answers, ("still there",)


def _method(place: Place, method: str, *rest: "str | bool") -> Ask:
    return lambda client: client._say(REQUEST, place.user, "ssh-connection", method, *rest)


def _own_key(place: Place) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key_file(str(place.key))


def _new_key(directory: Path) -> paramiko.PKey:
    file = directory / "new"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(file)
    return paramiko.Ed25519Key.from_private_key_file(str(file))


class TestBesideSshd:
    """Failures that are no keys: as many as `sshd` allows by `MaxAuthTries`, in the same words."""

    def test_the_first_none_is_free_and_the_sixth_failure_after_it_ends_the_connection(
        self, place: Place
    ) -> None:
        answers, last = _answers(place, _method(place, "none"))
        assert [said[0] for said in answers] == ["failure"] * 6
        assert last == ("disconnect", "Too many authentication failures")

    @pytest.mark.parametrize(
        ("method", "rest"),
        [
            ("password", (False, "guess")),
            ("keyboard-interactive", ("", "")),
            ("hostbased", ()),
            ("no-such-method", ()),
        ],
    )
    def test_the_sixth_failure_of_any_method_ends_the_connection(
        self, place: Place, method: str, rest: "tuple[str | bool, ...]"
    ) -> None:
        answers, last = _answers(place, _method(place, method, *rest), first=_method(place, "none"))
        assert [said[0] for said in answers] == ["failure"] * 6  # that of `none` is one of them
        assert last == ("disconnect", "Too many authentication failures")


class TestKeys:
    """Keys have a budget of their own, which is larger than that of `sshd`."""

    def test_twenty_refused_keys_are_answered_and_one_more_ends_the_connection(
        self, ours: Place, tmp_path: Path
    ) -> None:
        stranger = _new_key(tmp_path)
        answers, last = _answers(ours, lambda client: client.offer(ours.user, stranger))
        assert [said[0] for said in answers] == ["failure"] * 20
        assert last == ("disconnect", "Too many authentication failures")

    def test_a_welcome_key_that_is_never_proved_is_not_answered_without_end(self, ours: Place) -> None:
        answers, last = _answers(ours, lambda client: client.offer(ours.user, _own_key(ours)))
        assert [said[0] for said in answers] == ["key is welcome"] * 21
        assert last == ("disconnect", "Too many authentication failures")

    def test_a_forged_signature_is_not_answered_without_end(self, ours: Place, tmp_path: Path) -> None:
        forger = _new_key(tmp_path)
        answers, last = _answers(
            ours, lambda client: client.prove(ours.user, _own_key(ours), signed_by=forger)
        )
        assert [said[0] for said in answers] == ["failure"] * 20
        assert last == ("disconnect", "Too many authentication failures")

    @pytest.mark.parametrize("blob", ["", "nonsense", "\0\0\0\x0bssh-ed25519"])
    def test_what_is_no_key_is_not_answered_without_end(self, ours: Place, blob: str) -> None:
        ask = _method(ours, "publickey", False, "ssh-ed25519", blob)
        answers, last = _answers(ours, ask)
        assert [said[0] for said in answers] == ["failure"] * 20
        assert last == ("disconnect", "Too many authentication failures")

    def test_every_failure_before_the_right_key_leaves_it_its_chance(
        self, ours: Place, tmp_path: Path
    ) -> None:
        stranger, own = _new_key(tmp_path), _own_key(ours)
        with closing(RawClient(ours.port)) as client:
            _method(ours, "none")(client)
            assert client.hear()[0] == "failure"
            for _ in range(5):
                _method(ours, "password", False, "guess")(client)
                assert client.hear()[0] == "failure"
            for _ in range(20):
                client.offer(ours.user, stranger)
                assert client.hear()[0] == "failure"
            client.offer(ours.user, own)
            assert client.hear() == ("key is welcome",)
            client.prove(ours.user, own)
            assert client.hear() == ("success",)


class TestOtherRequests:
    def test_the_service_is_not_granted_without_end(self, ours: Place) -> None:
        answers, last = _answers(ours, lambda client: client._say(SERVICE_REQUEST, "ssh-userauth"))
        assert [said[0] for said in answers] == ["service"] * 5  # one was granted when the client began
        assert last == ("disconnect", "Too many authentication failures")

    def test_keys_are_not_exchanged_without_end(self, ours: Place) -> None:
        with closing(RawClient(ours.port)) as client:
            for _ in range(MOST):
                try:
                    client.renegotiate_keys()
                except (paramiko.SSHException, EOFError, OSError):
                    break
            assert client.hear() == ("disconnect", "Too many authentication failures")

    def test_an_approval_is_not_begun_anew_without_end(self, ours: Place, tmp_path: Path) -> None:
        key = _new_key(tmp_path)

        def prove(client: RawClient) -> None:
            client.prove("newcomer", key)

        answers, last = _answers(ours, lambda client: client.keyboard("newcomer"), first=prove)
        assert [said[0] for said in answers] == ["failure", *["shown"] * 6]
        assert answers[0][2] is True  # partial success
        assert last == ("disconnect", "Too many authentication failures")

    def test_a_question_is_answered_once(self, ours: Place, tmp_path: Path) -> None:
        key = _new_key(tmp_path)
        with closing(RawClient(ours.port)) as client:
            client.prove("newcomer2", key)
            assert client.hear()[0] == "failure"
            client.keyboard("newcomer2")
            assert client.hear()[0] == "shown"
            client.answer()
            client._say(SERVICE_REQUEST, "ssh-userauth")
            assert client.hear() == ("service",)  # the first answer is being dealt with by now
            client.answer()
            assert client.hear() == ("disconnect", "an answer before the question")
