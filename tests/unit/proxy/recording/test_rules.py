"""Who is recorded, and under which terms."""

import pytest
from pydantic import ValidationError

from proxy.blueprints.schema import Blueprint
from proxy.model import Exec, ProgramSpec, Pty, Shell, Subsystem, User, WindowSize
from proxy.recording.rules import Terms, kinds_of, terms_for
from proxy.settings.recording import RecordingRule, RecordingSettings, RecordKind, S3Settings

PTY = Pty("xterm", WindowSize(80, 24))


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        (ProgramSpec(Shell(), pty=PTY), ("shell",)),
        (ProgramSpec(Shell()), ("shell",)),
        (ProgramSpec(Exec("true")), ("exec",)),
        (ProgramSpec(Exec("bash"), pty=PTY), ("exec", "shell")),
        (ProgramSpec(Subsystem("sftp")), ("sftp",)),
    ],
)
def test_a_command_with_a_terminal_escapes_neither_rule(
    spec: ProgramSpec, kinds: tuple[RecordKind, ...]
) -> None:
    assert kinds_of(spec) == kinds


def terms(
    *rules: RecordingRule, user: User, blueprint: str = "dev", wanted: tuple[str, ...] = ()
) -> Terms | None:
    settings = RecordingSettings(rules=rules, retention_days=30)
    asked = Blueprint(name=blueprint, record=wanted)  # type: ignore[arg-type]
    return terms_for(settings, user, asked, ("shell",))


ALICE = User("alice", groups=("staff", "ops"))


def test_the_first_rule_that_matches_decides() -> None:
    exempt = RecordingRule(users=("ali*",), record=())
    everyone = RecordingRule(on_failure="refuse", input=True, retention_days=7)
    assert terms(exempt, everyone, user=ALICE) is None
    assert terms(exempt, everyone, user=User("bob")) == Terms(True, "refuse", 7)


def test_every_list_that_is_given_must_match() -> None:
    rule = RecordingRule(users=("alice",), groups=("ops",), blueprints=("prod-*",))
    assert terms(rule, user=ALICE, blueprint="prod-eu")
    assert terms(rule, user=ALICE) is None
    assert terms(rule, user=User("alice"), blueprint="prod-eu") is None
    assert terms(rule, user=User("bob", groups=("ops",)), blueprint="prod-eu") is None


def test_groups_that_are_too_old_exempt_nobody_and_still_have_their_people_recorded() -> None:
    old = User("alice", known_groups=("ops",))
    exempt, strict = RecordingRule(groups=("ops",), record=()), RecordingRule(groups=("ops",), input=True)
    everyone = RecordingRule()
    assert terms(exempt, everyone, user=User("alice", groups=("ops",))) is None
    assert terms(exempt, everyone, user=old) is not None
    assert terms(strict, user=old) == Terms(True, "continue", 30)


def test_a_blueprint_adds_and_never_takes_away() -> None:
    assert terms(user=ALICE, wanted=("shell",)) == Terms(False, "continue", 30)
    assert terms(user=ALICE, wanted=("sftp",)) is None
    strict = RecordingRule(on_failure="refuse")
    assert terms(strict, user=ALICE, wanted=()) == Terms(False, "refuse", 30)
    sftp_only = RecordingRule(record=("sftp",), on_failure="refuse")
    assert terms(sftp_only, user=ALICE, wanted=("shell",)) == Terms(False, "refuse", 30)


def test_settings_that_contradict_themselves_are_refused() -> None:
    for wrong in (
        {"block_bytes": 8_192, "buffer_bytes": 4_096},
        {"store": "s3"},
        {"store": "s3", "s3": {"bucket": "b", "access_key_id": "x"}},
        {"s3": {"prefix": "no-slash"}},
        {"rules": [{"record": ["everything"]}]},
    ):
        with pytest.raises(ValidationError):
            RecordingSettings.model_validate(wrong)
    assert S3Settings(prefix="a/b/").prefix == "a/b/"
