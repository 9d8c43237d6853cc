"""Rules of certificates and of revoked keys, by Fairlead and by the `sshd` that is their measure."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.sshd import find_sshd
from tests.wire.harness import Fairlead
from tests.wire.sshd import Sshd

FORCED = 'printf "<%s>" "${SSH_ORIGINAL_COMMAND-none}"'
"""A forced command that says what the client asked for."""


@dataclass
class Server:
    """Fairlead or `sshd`, with two trusted authorities and one list of revoked keys."""

    running: Fairlead | Sshd
    login: str
    revoked: Path
    ca: Path
    rsa_ca: Path

    def log_in(
        self, key: Path, *words: str, options: tuple[str, ...] = ()
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run `ssh` with this key and no other."""
        configured = self.running.ssh_config.read_text()
        bare = self.running.directory / "bare_config"
        bare.write_text(configured.replace(f" IdentityFile {self.running.key}\n", ""))
        weak = ("-o", "IgnoreUnknown=RequiredRSASize", "-o", "RequiredRSASize=1024")
        identity = ("-o", f"IdentityFile={key}", *weak, "-l", self.login)
        return subprocess.run(
            ["ssh", "-F", bare, *identity, *options, "fl", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )

    def lets_in(self, key: Path) -> bool:
        return self.log_in(key, "echo in").stdout == b"in\n"


@pytest.fixture(scope="module", params=["fairlead", "sshd"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    ca, rsa_ca = make_key(folder / "ca"), make_key(folder / "rsa_ca", "-t", "rsa", "-b", "3072")
    both = folder / "ca_keys"
    both.write_text(Path(f"{ca}.pub").read_text() + Path(f"{rsa_ca}.pub").read_text())
    revoked = folder / "revoked_keys"
    revoked.touch()
    if request.param == "sshd":
        if find_sshd() is None:
            pytest.skip("optional, not found here: sshd")
        made = Sshd(folder)
        settings = [f"TrustedUserCAKeys {both}", f"RevokedKeys {revoked}", "Subsystem sftp internal-sftp"]
        with made.running([*settings, "RequiredRSASize 2048"]) as sshd:
            yield Server(sshd, sshd.login, revoked, ca, rsa_ca)
        return
    fairlead = Fairlead(folder)
    fairlead.extra_env["FAIRLEAD_IDENTITY__TRUSTED_USER_CA_KEYS"] = f'["{both}"]'
    fairlead.extra_env["FAIRLEAD_IDENTITY__REVOKED_KEYS"] = f'["{revoked}"]'
    fairlead.prepare()
    try:
        fairlead.start()
        yield Server(fairlead, "alice+dev", revoked, ca, rsa_ca)
    finally:
        fairlead.close()


@pytest.fixture
def nothing_revoked(server: Server) -> Iterator[None]:
    """Empty the list afterwards, whatever became of it."""
    yield
    server.revoked.unlink(missing_ok=True)
    server.revoked.touch()


def make_key(path: Path, *options: str) -> Path:
    kind = options or ("-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-f", path], check=True)
    return path


def sign(server: Server, key: Path, *options: str, ca: Path | None = None) -> Path:
    principals = server.login.removesuffix("+dev")
    names = ["-I", f"id of {key.name}", "-n", principals]
    subprocess.run(
        ["ssh-keygen", "-q", "-s", ca or server.ca, *names, *options, f"{key}.pub"],
        check=True,
        capture_output=True,
    )
    return key


def write_krl(server: Server, folder: Path, lines: str, *options: str) -> None:
    """Replace the list by a KRL, in one step."""
    (folder / "spec").write_text(lines)
    fresh = server.revoked.with_name("fresh")
    subprocess.run(["ssh-keygen", "-q", "-k", *options, "-f", fresh, folder / "spec"], check=True)
    fresh.replace(server.revoked)


# ------------------------------------------------------------------------------ strength


@pytest.mark.parametrize(
    ("algorithm", "expected"), [("ssh-rsa", False), ("rsa-sha2-256", True), ("rsa-sha2-512", True)]
)
def test_a_signature_of_an_authority_over_sha_1_proves_nothing(
    server: Server, tmp_path: Path, algorithm: str, expected: bool
) -> None:
    key = sign(server, make_key(tmp_path / "id"), "-t", algorithm, ca=server.rsa_ca)
    said = subprocess.run(["ssh-keygen", "-Lf", f"{key}-cert.pub"], capture_output=True, text=True).stdout
    assert f"(using {algorithm})" in said
    assert server.lets_in(key) is expected


@pytest.mark.parametrize(("bits", "expected"), [(1024, False), (2048, True)])
def test_an_rsa_key_in_a_certificate_has_at_least_2048_bits(
    server: Server, tmp_path: Path, bits: int, expected: bool
) -> None:
    key = sign(server, make_key(tmp_path / "id", "-t", "rsa", "-b", str(bits)))
    assert server.lets_in(key) is expected


# ------------------------------------------------------------------------ forced commands


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), True), (("-O", "no-user-rc"), False), (("-O", "force-command=echo forced"), True)],
    ids=["default", "no-user-rc", "forced"],
)
def test_user_rc_runs_where_the_certificate_permits_it(
    server: Server, tmp_path: Path, options: tuple[str, ...], *, expected: bool
) -> None:
    """By hand, `sshd` did the same for the default and for `no-user-rc`.

    Here the home of its user is not the test's to write to.
    """
    if isinstance(server.running, Sshd):
        pytest.skip("sshd would run what is in the real home of the user")
    assert server.running.ssh("true").returncode == 0
    folder = server.running.workspace() / "home" / ".ssh"
    folder.mkdir(exist_ok=True)
    (folder / "rc").write_text("echo rc >&2\n")
    try:
        key = sign(server, make_key(tmp_path / "id"), *options)
        assert (server.log_in(key, "true").stderr == b"rc\n") is expected
        assert server.running.ssh("true").stderr == b"rc\n"
    finally:
        (folder / "rc").unlink()


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (("echo mine; x='y z'",), (), b"<echo mine; x='y z'>"),
        ((), ("-T",), b"<none>"),
        ((), ("-T", "-o", "SetEnv=SSH_ORIGINAL_COMMAND=forged"), b"<none>"),
        (("sftp",), ("-s",), b"<internal-sftp>"),
    ],
    ids=["exec", "shell", "environment", "subsystem"],
)
def test_a_forced_command_sees_what_was_asked_for(
    server: Server, tmp_path: Path, words: tuple[str, ...], options: tuple[str, ...], said: bytes
) -> None:
    key = sign(server, make_key(tmp_path / "id"), "-O", f"force-command={FORCED}")
    assert server.log_in(key, *words, options=options).stdout == said


def test_a_forced_internal_sftp_serves_files_and_nothing_else(server: Server, tmp_path: Path) -> None:
    key = sign(server, make_key(tmp_path / "id"), "-O", "force-command=internal-sftp")
    assert server.lets_in(key) is False  # the config of `sftp` below is made here
    (tmp_path / "there").write_text("content")
    config = server.running.directory / "bare_config"
    to_server = ("-F", config, "-o", f"IdentityFile={key}", "-o", f"User={server.login}")
    done = subprocess.run(
        ["sftp", "-q", "-b", "-", *to_server, "fl"],
        input=f"get {tmp_path}/there {tmp_path}/fetched\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (tmp_path / "fetched").exists(), done.stderr
    for words in (("echo mine",), ("-T",)):
        refused = server.log_in(key, *words)
        assert refused.returncode != 0
        assert b"mine" not in refused.stdout
        assert b"sftp" in refused.stdout + refused.stderr


# ------------------------------------------------------------------------- revoked keys


@pytest.mark.usefixtures("nothing_revoked")
@pytest.mark.parametrize("how", ["key", "serial", "id", "authority", "sha1", "sha256", "hash"])
def test_a_krl_revokes_at_the_next_login(server: Server, tmp_path: Path, how: str) -> None:
    key = sign(server, make_key(tmp_path / f"revoked_{how}"), "-z", "7")
    other = sign(server, make_key(tmp_path / "other"), "-z", "8", ca=server.rsa_ca)
    printed = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True).stdout
    public = Path(f"{key}.pub").read_text()
    spec = {
        "key": public,
        "serial": "serial: 7\n",
        "id": f"id: id of {key.name}\n",
        "authority": Path(f"{server.ca}.pub").read_text(),
        "sha1": f"sha1: {public}",
        "sha256": f"sha256: {public}",
        "hash": f"hash: {printed.split()[1]}\n",
    }[how]
    assert server.lets_in(key)
    options = ("-s", f"{server.ca}.pub") if how in ("serial", "id") else ()
    write_krl(server, tmp_path, spec, *options)
    assert not server.lets_in(key)
    assert server.lets_in(other)


@pytest.mark.usefixtures("nothing_revoked")
def test_a_plain_list_revokes_plain_keys_certified_keys_and_authorities(
    server: Server, tmp_path: Path
) -> None:
    own, certified = server.running.key, sign(server, make_key(tmp_path / "id"))
    for revoked, gone in ((own, {own}), (certified, {certified}), (server.ca, {certified})):
        server.revoked.write_text(f"# why\n\n  {Path(f'{revoked}.pub').read_text()}")
        assert {key for key in (own, certified) if not server.lets_in(key)} == gone


@pytest.mark.usefixtures("nothing_revoked")
@pytest.mark.parametrize("content", ["nonsense\n", "SSHKRL\n\0", None], ids=["text", "cut short", "absent"])
def test_a_list_that_cannot_be_read_lets_nobody_in(server: Server, content: str | None) -> None:
    if content is None:
        server.revoked.unlink()
    else:
        server.revoked.write_text(content)
    assert not server.lets_in(server.running.key)
    if isinstance(server.running, Fairlead):
        told = [line for line in server.running.log.splitlines() if "revoked keys cannot be read" in line]
        assert str(server.revoked) in told[-1]
    server.revoked.write_text("")
    assert server.lets_in(server.running.key)


@pytest.mark.usefixtures("nothing_revoked")
def test_revoking_ends_the_live_session_of_that_key_alone(server: Server, tmp_path: Path) -> None:
    if not isinstance(server.running, Fairlead):
        pytest.skip("sshd leaves sessions alone that are logged in")
    key = sign(server, make_key(tmp_path / "id"), "-z", "77")
    server.lets_in(key)  # makes the configuration
    config = server.running.directory / "bare_config"
    identity = ("-o", f"IdentityFile={key}", "-l", server.login, "-o", "LogLevel=INFO")
    revoked, staying = (
        subprocess.Popen(
            ["ssh", "-F", used, *how, "fl", "echo in; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for used, how in ((config, identity), (server.running.ssh_config, ()))
    )
    for one in (revoked, staying):
        assert one.stdout is not None
        assert one.stdout.readline() == b"in\n"
    write_krl(server, tmp_path, "serial: 77\n", "-s", f"{server.ca}.pub")
    revoked.wait(timeout=60)
    _, told = revoked.communicate()
    assert b"the key of this connection was revoked" in told
    out, _ = staying.communicate(b"still here\n", timeout=60)
    assert out == b"still here\n"
