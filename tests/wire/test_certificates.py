"""User certificates made by ssh-keygen, presented by OpenSSH's own client."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def sign(authority: Path, key: Path, *options: str, principals: str = "alice") -> None:
    names = ["-n", principals] if principals else []
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "key id", *names, *options, f"{key}.pub"], check=True
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("ca") / "ca")


@pytest.fixture(scope="module")
def trusting(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    server = Fairlead(tmp_path_factory.mktemp("trusting"))
    server.extra_env["FAIRLEAD_IDENTITY__TRUSTED_USER_CA_KEYS"] = f'["{authority}.pub"]'
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.close()


def log_in(
    server: Fairlead, key: Path, command: str = "echo in", *options: str, user: str = "alice+dev"
) -> "subprocess.CompletedProcess[bytes]":
    words = ["-o", f"IdentityFile={key}", "-o", "LogLevel=INFO", "-l", user, *options]
    # The harness' own key would get in by itself: a configuration without it.
    bare = server.directory / "bare_config"
    bare.write_text(
        server.ssh_config.read_text().replace(f" IdentityFile {server.key}\n", "").replace("ERROR", "INFO")
    )
    return subprocess.run(
        ["ssh", "-F", bare, *words, "fl", command], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )


def test_a_certificate_for_the_user_lets_in_without_a_stored_key(
    trusting: Fairlead, authority: Path, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "id")
    sign(authority, key, "-V", "+5m")
    done = log_in(trusting, key)
    assert done.stdout == b"in\n", done.stderr


@pytest.mark.parametrize(
    ("options", "principals", "sentence"),
    [
        (("-V", "20200101:20200102"), "alice", b"your certificate expired 2020-01-02"),
        (("-V", "20990101:20990102"), "alice", b"your certificate is not valid before 2099-01-01"),
        ((), "bob,carol", b"your certificate is for bob, carol, not for alice"),
        ((), "", b"your certificate is for no user, not for alice"),
        (("-O", "source-address=192.0.2.0/24"), "alice", b"your certificate may not be used from 127.0.0.1"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused_with_its_own_sentence(
    trusting: Fairlead,
    authority: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    principals: str,
    sentence: bytes,
) -> None:
    key = make_key(tmp_path / "id")
    sign(authority, key, *options, principals=principals)
    done = log_in(trusting, key)
    assert done.returncode == 255
    assert sentence in done.stderr
    assert b"Permission denied (publickey)" in done.stderr


def test_a_certificate_of_somebody_elses_authority_is_refused_without_a_word(
    trusting: Fairlead, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "id")
    sign(make_key(tmp_path / "strange_ca"), key)
    done = log_in(trusting, key)
    assert done.returncode == 255
    assert b"certificate" not in done.stderr


def test_a_certificate_lets_no_unknown_user_in(trusting: Fairlead, authority: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "id")
    sign(authority, key, principals="stranger")
    assert log_in(trusting, key, user="stranger+dev").returncode == 255


def test_force_command_replaces_what_was_asked_for(
    trusting: Fairlead, authority: Path, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "id")
    sign(authority, key, "-O", "force-command=echo forced")
    assert log_in(trusting, key, "echo mine").stdout == b"forced\n"


def test_what_a_certificate_does_not_permit_is_refused(
    trusting: Fairlead, authority: Path, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "id")
    sign(authority, key, "-O", "clear")
    assert b"PTY allocation request failed" in log_in(trusting, key, "tty", "-tt").stderr
    forward = log_in(trusting, key, "true", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1")
    assert b"remote port forwarding failed" in forward.stderr
    dialled = log_in(trusting, key, "", "-W", "127.0.0.1:1")
    assert b"administratively prohibited" in dialled.stderr


def test_the_event_and_the_log_name_the_certificate(
    trusting: Fairlead, authority: Path, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "id")
    sign(authority, key)
    log_in(trusting, key)
    assert '"certificate": "key id"' in trusting.log
