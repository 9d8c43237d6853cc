import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.blueprints.catalog import DirectoryCatalog
from proxy.cli import quickstart
from proxy.cli.quickstart import Prepared, knows, prepare, reachable, ssh_line, user_name
from proxy.errors import FairleadError
from proxy.identity.store import SqlDirectory
from proxy.settings import Settings
from proxy.settings.web import WebSettings


def public_line(comment: str = "x") -> str:
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return f"{public.decode()} {comment}"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of somebody with an empty home and no ssh-agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(quickstart, "_ssh_dir", lambda: tmp_path / ".ssh")
    monkeypatch.setattr(quickstart, "_account_name", lambda: "Jane.Doe")
    (tmp_path / ".ssh").mkdir()
    return Settings(home=tmp_path / "state", listen="127.0.0.1:0")


async def keys(settings: Settings) -> list[str]:
    directory = await SqlDirectory.open(settings.database_url)
    try:
        return [str(stored.key) for stored in await directory.keys_of("jane.doe")]
    finally:
        await directory.close()


async def test_somebody_without_keys_gets_one(settings: Settings) -> None:
    first = await prepare(settings)
    assert first.identity == settings.state_dir / "quickstart_ed25519"
    assert first.identity.stat().st_mode & 0o777 == 0o600
    assert first.keys == "a key made for this"
    assert settings.state_dir.stat().st_mode & 0o777 == 0o700
    before = await keys(settings)
    assert len(before) == 1
    assert await prepare(settings) == first
    assert await keys(settings) == before


async def test_keys_that_ssh_finds_by_itself_need_no_option(settings: Settings, tmp_path: Path) -> None:
    line = public_line()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(line + "\n")
    (tmp_path / ".ssh" / "id_ed25519").touch()
    (tmp_path / ".ssh" / "broken.pub").write_text("not a key")
    prepared = await prepare(settings)
    assert prepared.identity is None
    assert prepared.keys == "1 key of ~/.ssh"
    assert await keys(settings) == [line]


async def test_a_key_of_another_name_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / ".ssh" / "work.pub").write_text(public_line() + "\n")
    (tmp_path / ".ssh" / "work").touch()
    assert (await prepare(settings)).identity == tmp_path / ".ssh" / "work"


async def test_a_public_half_alone_is_authorised_and_not_relied_on(
    settings: Settings, tmp_path: Path
) -> None:
    line = public_line()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(line + "\n")
    prepared = await prepare(settings)
    assert prepared.identity == settings.state_dir / "quickstart_ed25519"
    assert line in await keys(settings)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo '{line}'; echo 'ssh-dss AAAA weak'", "1 of the ssh-agent"),
        ("echo 'The agent has no identities.'; exit 1", "a key made for this"),
        ("exec sleep 60", "a key made for this"),
    ],
)
async def test_keys_of_an_ssh_agent(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: str
) -> None:
    program = tmp_path / "bin" / "ssh-add"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script.format(line=public_line('agent'))}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setattr(quickstart, "SSH_AGENT_TIMEOUT_S", 0.5)
    assert (await prepare(settings)).keys == found


async def test_the_first_blueprint_is_written_once(settings: Settings) -> None:
    await prepare(settings)
    assert list(DirectoryCatalog(settings.blueprint_dir).current().definitions) == ["dev"]
    (settings.blueprint_dir / "dev.yaml").rename(settings.blueprint_dir / "mine.yaml")
    (settings.blueprint_dir / "mine.yaml").write_text("")
    await prepare(settings)
    assert list(DirectoryCatalog(settings.blueprint_dir).current().definitions) == ["mine"]


async def test_a_taken_port_is_said_before_anything_is_made(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(FairleadError, match=r"is taken .* FAIRLEAD_LISTEN=127\.0\.0\.1:") as caught:
            await prepare(Settings(home=settings.home, listen=address))
    assert address in str(caught.value)
    assert not settings.state_dir.exists()


async def test_a_home_that_cannot_be_written_is_said(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(FairleadError, match="FAIRLEAD_HOME names another place"):
        await prepare(settings)


@pytest.mark.parametrize(
    ("host", "port", "identity", "known_hosts", "line"),
    [
        ("127.0.0.1", 2222, None, None, "ssh -p 2222 alice+dev@127.0.0.1"),
        ("0.0.0.0", 22, None, None, "ssh alice+dev@127.0.0.1"),
        ("::", 2222, None, None, "ssh -p 2222 alice+dev@::1"),
        ("127.0.0.1", 2222, "/w/.fairlead/key", None, "ssh -p 2222 -i .fairlead/key alice+dev@127.0.0.1"),
        (
            "127.0.0.1",
            2222,
            "/my keys/k",
            "/w/.fairlead/known_hosts",
            "ssh -p 2222 -i '/my keys/k' -o UserKnownHostsFile=.fairlead/known_hosts alice+dev@127.0.0.1",
        ),
    ],
)
def test_the_line_to_type(
    host: str, port: int, identity: str | None, known_hosts: str | None, line: str
) -> None:
    prepared = Prepared("alice", "dev", Path("/w/.fairlead"), Path(identity) if identity else None, "")
    known = Path(known_hosts) if known_hosts else None
    assert ssh_line(prepared, host, port, known_hosts=known, near=Path("/w")) == line


@pytest.mark.parametrize(
    ("account", "name"),
    [
        ("alice", "alice"),
        ("Jane.Doe", "jane.doe"),
        ("CORP\\jane doe", "corp-jane-doe"),
        ("-x.", "x"),
        ("łukasz", "ukasz"),
        ("...", "user"),
        ("b64-x", "user"),
        ("x" * 200, "x" * 64),
    ],
)
def test_an_account_becomes_a_name_that_can_be_typed(account: str, name: str) -> None:
    assert user_name(account) == name


@pytest.mark.parametrize(
    ("known_hosts", "answer"),
    [
        ("", False),
        ("# comment\n\n[127.0.0.1]:2222 ssh-ed25519 OURS\n", True),
        ("[127.0.0.1]:2222 ssh-ed25519 OTHER\n", False),
        ("[127.0.0.1]:2222 ssh-ed25519 OTHER\n[127.0.0.1]:2222 ssh-ed25519 OURS comment\n", True),
        ("[127.0.0.1]:2223 ssh-ed25519 OURS\n127.0.0.1 ssh-ed25519 OURS\n", False),
        ("example.com,[127.0.0.1]:2222 ssh-rsa MINE\n", True),
        ("@cert-authority [127.0.0.1]:2222 ssh-rsa MINE\n", False),
        ("|1|nonsense ssh-rsa MINE\n|1|!|! ssh-rsa MINE\n", False),
        # ssh-keygen -H of [127.0.0.1]:2222
        ("|1|AAECAwQFBgcICQoLDA0ODxAREhM=|HASH ssh-rsa MINE\n", True),
    ],
)
def test_a_known_hosts_file_that_knows_us_is_noticed(known_hosts: str, answer: bool) -> None:
    import base64
    import hashlib
    import hmac

    digest = hmac.digest(bytes(range(20)), b"[127.0.0.1]:2222", hashlib.sha1)
    text = known_hosts.replace("HASH", base64.b64encode(digest).decode())
    assert knows(text, "127.0.0.1", 2222, ["ssh-ed25519 OURS fairlead", "ssh-rsa MINE"]) is answer


@pytest.mark.parametrize(("host", "target"), [("", "127.0.0.1"), ("10.0.0.1", "10.0.0.1"), ("::", "::1")])
def test_what_is_listened_on_can_be_connected_to(host: str, target: str) -> None:
    assert reachable(host) == target


def test_on_a_pipe_the_line_stands_alone(
    settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / ".ssh" / "known_hosts").write_text("[127.0.0.1]:2222 ssh-ed25519 OTHER\n")
    settings.state_dir.mkdir()
    prepared = Prepared("alice", "dev", settings.state_dir, None, "1 key of ~/.ssh")
    quickstart.announce(prepared, "127.0.0.1", 2222, ["SHA256:x (ssh-ed25519)"], ["ssh-ed25519 OURS"])
    lines = capsys.readouterr().out.splitlines()
    known = settings.state_dir / "known_hosts"
    assert lines[1] == f"ssh -p 2222 -o UserKnownHostsFile={known} alice+dev@127.0.0.1"
    assert "host keys: SHA256:x (ssh-ed25519)" in lines
    assert known.read_text() == "[127.0.0.1]:2222 ssh-ed25519 OURS\n"


def test_web_apps_are_shown_on_loopback_unless_the_settings_say_otherwise(settings: Settings) -> None:
    assert quickstart.with_web(settings).web.listen.startswith("127.0.0.1:")
    off = settings.model_copy(update={"web": WebSettings(listen="")})
    assert quickstart.with_web(off).web.listen == ""
    other = settings.model_copy(update={"web": WebSettings(listen="127.0.0.1:1")})
    assert quickstart.with_web(other).web.listen == "127.0.0.1:1"


def test_a_taken_port_of_web_apps_is_replaced_by_a_free_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(quickstart, "_WEB_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        assert quickstart.with_web(settings).web.listen == "127.0.0.1:0"


@pytest.mark.parametrize("found", [(), ("jupyter-lab", "code-server")], ids=["nothing", "both"])
def test_the_first_blueprint_declares_files_common_ports_and_the_apps_that_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(quickstart, "which", lambda name: f"/opt/my apps/{name}" if name in found else None)
    quickstart._write_first_blueprint(tmp_path)
    apps = DirectoryCatalog(tmp_path).current().definitions["dev"].sample.apps
    ports = {slug: app.listen.port for slug, app in apps.items() if app.listen.port}
    common = {"node": 3000, "vite": 5173, "http": 8000}
    assert apps["files"].built_in == "files"
    if not found:
        assert ports == common | {"lab": 8888}
        assert set(apps) == {"files", *ports}
    else:
        assert ports == common
        assert apps["lab"].start.startswith("exec '/opt/my apps/jupyter-lab' --no-browser --ServerApp.sock=")
        assert apps["code"].start.startswith("exec '/opt/my apps/code-server' --socket ")
        assert "\n" not in apps["lab"].start + apps["code"].start


def test_the_addresses_of_web_apps_are_printed_beside_the_line_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = Prepared("alice", "dev", tmp_path, None, "a key")
    apps = [
        ("port 8888", "http://lab--dev--alice.localhost:8022/"),
        ("x", "http://x--dev--alice.localhost:8022/"),
    ]
    quickstart.announce(prepared, "127.0.0.1", 2222, ["SHA256:x"], ["ssh-ed25519 AAAA"], apps)
    said = capsys.readouterr().out
    assert "\nssh -p 2222" in said
    assert "\nweb: http://lab--dev--alice.localhost:8022/  port 8888\n" in said
