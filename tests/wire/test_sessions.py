"""What is on record of real clients: totals to the byte, kinds, ends, and orders to end something."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.wire.clients import paramiko_login
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead, free_port, needs
from tests.wire.peers import until

SETTINGS = {"FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.05", "FAIRLEAD_SESSIONS__KILL_POLL_S": "0.1"}
MIB = 1024 * 1024

pytestmark = pytest.mark.usefixtures("warm")


def rows(server: Fairlead, query: str, *values: str) -> list[dict[str, Any]]:
    """Look into the proxy's database, as it is now."""
    with closing(sqlite3.connect(f"file:{server.home}/fairlead.db?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values)]


def show(server: Fairlead, id_: str) -> dict[str, Any]:
    (session,) = rows(server, "SELECT * FROM connections WHERE id = ?", id_)
    programs = rows(server, "SELECT * FROM programs WHERE connection = ? ORDER BY started_at, id", id_)
    return {**session, "programs": programs}


def ids(server: Fairlead, condition: str) -> set[str]:
    return {row["id"] for row in rows(server, f"SELECT id FROM connections WHERE {condition}")}


def ended(server: Fairlead, before: set[str]) -> dict[str, Any]:
    """Wait for the one session that is on record, ended, and not among those before; with its programs."""
    until(lambda: ids(server, "ended_at IS NOT NULL") - before, "the session is on record")
    (id_,) = ids(server, "ended_at IS NOT NULL") - before
    return show(server, id_)


@pytest.fixture
def before(fairlead: Fairlead) -> set[str]:
    """Sessions on record before the test."""
    until(lambda: not ids(fairlead, "ended_at IS NULL") and ids(fairlead, "1"), "what was before has ended")
    return ids(fairlead, "1")


def live(server: Fairlead) -> dict[str, Any]:
    """Wait for the one live session with a program."""

    def found() -> list[dict[str, Any]]:
        sessions = [show(server, id_) for id_ in ids(server, "ended_at IS NULL")]
        return [session for session in sessions if session["programs"]]

    until(found, "the session is live")
    return found()[0]


def totals(row: dict[str, Any]) -> tuple[int, int]:
    return row["bytes_from_client"], row["bytes_to_client"]


def test_a_command(fairlead: Fairlead, before: set[str]) -> None:
    done = fairlead.ssh("cat; echo to-stderr >&2; exit 3", data=b"x" * 12_345)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, 12_345, b"to-stderr\n")
    session = ended(fairlead, before)
    assert totals(session) == (12_345, 12_345 + 10)
    assert session["user"] == "alice"
    assert session["blueprint"] == "dev"
    assert session["workspace"] == fairlead.workspace().name
    assert session["client_address"] == "127.0.0.1"
    assert session["client_type"] == "OpenSSH"
    assert session["client_version"].startswith("OpenSSH_")
    assert session["fingerprint"].startswith("SHA256:")
    assert session["end_reason"] == "left"
    assert fairlead.process is not None
    assert session["pid"] == fairlead.process.pid
    (program,) = session["programs"]
    assert (program["kind"], program["command"]) == ("exec", "cat; echo to-stderr >&2; exit 3")
    assert (program["end_reason"], program["exit_status"], program["exit_signal"]) == ("exited", 3, "")
    assert totals(program) == totals(session)


def test_a_signal(fairlead: Fairlead, before: set[str]) -> None:
    fairlead.ssh("kill -TERM $$")
    (program,) = ended(fairlead, before)["programs"]
    assert (program["end_reason"], program["exit_status"], program["exit_signal"]) == ("exited", None, "TERM")


def test_bulk_both_ways(fairlead: Fairlead, before: set[str]) -> None:
    data = os.urandom(9 * MIB + 7)
    done = fairlead.ssh("wc -c; head -c 20000001 /dev/zero", data=data)
    words, _, zeros = done.stdout.partition(b"\n")
    assert (int(words), len(zeros)) == (len(data), 20_000_001)
    assert totals(ended(fairlead, before)) == (len(data), len(done.stdout))


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes128-ctr"])
def test_other_ciphers_take_another_road_and_count_the_same(
    fairlead: Fairlead, before: set[str], cipher: str
) -> None:
    data = os.urandom(MIB + 1)
    done = fairlead.ssh("cat", "-c", cipher, data=data)
    assert done.stdout == data
    assert totals(ended(fairlead, before)) == (len(data), len(data))


def test_a_shell_on_a_terminal(fairlead: Fairlead, before: set[str]) -> None:
    done = subprocess.run(
        [*fairlead.command("ssh", "-tt"), "fl"], input=b"exit 5\n", capture_output=True, timeout=60
    )
    assert done.returncode == 5
    session = ended(fairlead, before)
    (program,) = session["programs"]
    assert (program["kind"], program["pty"], program["command"]) == ("shell", 1, "")
    assert program["exit_status"] == 5
    assert totals(program) == (7, len(done.stdout))


def test_an_sftp_upload(fairlead: Fairlead, before: set[str], tmp_path: Path) -> None:
    """Counted by the bytes of the SFTP protocol, which Paramiko lets us see."""
    connection = paramiko_login(fairlead)
    channel = connection.open_session()
    channel.invoke_subsystem("sftp")
    hello = (5).to_bytes(4, "big") + b"\x01" + (3).to_bytes(4, "big")
    channel.sendall(hello)
    answer = b""
    while len(answer) < 4 or len(answer) < 4 + int.from_bytes(answer[:4], "big"):
        answer += channel.recv(65_536)
    channel.close()
    connection.close()
    session = ended(fairlead, before)
    (program,) = session["programs"]
    assert program["kind"] == "sftp"
    assert totals(program) == (len(hello), len(answer))
    assert session["client_type"] == "Paramiko"


@needs("scp")
def test_copying_a_file(fairlead: Fairlead, before: set[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 * MIB))
    for option, kind in (("-O", "scp"), ("-s", "sftp")):
        subprocess.run(
            [*fairlead.command("scp", option, "-q"), tmp_path / "file", "fl:copied"], check=True, timeout=60
        )
        session = ended(fairlead, before)
        before.add(session["id"])
        (program,) = session["programs"]
        assert program["kind"] == kind
        assert totals(program)[0] > 3 * MIB


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets; the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                while piece := peer.recv(65_536):
                    peer.sendall(piece)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_a_forward(fairlead: Fairlead, before: set[str], echo: int) -> None:
    port = free_port()
    size = 5 * MIB + 3
    forward = [*fairlead.command("ssh", "-N", "-L", f"{port}:127.0.0.1:{echo}"), "fl"]
    with subprocess.Popen(forward, stdin=subprocess.DEVNULL) as client:
        until(lambda: _connects(port), "the forward listens")
        with socket.create_connection(("127.0.0.1", port)) as near:
            threading.Thread(target=_send, args=(near, size), daemon=True).start()
            received = 0
            while piece := near.recv(65_536):
                received += len(piece)
        assert received == size
        until(lambda: live(fairlead)["programs"][-1]["ended_at"], "the forward has ended")
        client.send_signal(signal.SIGTERM)
        client.wait(30)
    session = ended(fairlead, before)
    assert totals(session) == (size, size)
    carried = session["programs"][-1]
    assert (carried["kind"], carried["target"]) == ("forward", f"127.0.0.1:{echo}")
    assert (carried["end_reason"], totals(carried)) == ("closed", (size, size))


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _send(peer: socket.socket, size: int) -> None:
    peer.sendall(b"z" * size)
    peer.shutdown(socket.SHUT_WR)


def test_a_forward_that_is_refused(fairlead: Fairlead, before: set[str]) -> None:
    done = subprocess.run(
        [*fairlead.command("ssh", "-W", f"127.0.0.1:{free_port()}"), "fl"], capture_output=True, timeout=60
    )
    assert done.returncode == 255
    (program,) = ended(fairlead, before)["programs"]
    assert (program["kind"], program["end_reason"]) == ("forward", "failed")
    assert "refused" in program["end_detail"]


def test_a_listener_and_what_comes_in_through_it(fairlead: Fairlead, before: set[str], echo: int) -> None:
    port = free_port()
    reach = f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; head -n 1 <&3; exec 3>&-"
    done = fairlead.ssh(f"bash -c '{reach}'", "-R", f"127.0.0.1:{port}:127.0.0.1:{echo}")
    assert done.stdout == b"hello\n", done.stderr
    session = ended(fairlead, before)
    by_kind = {program["kind"]: program for program in session["programs"]}
    assert by_kind.keys() == {"listen", "forwarded", "exec"}
    assert by_kind["listen"]["target"] == by_kind["forwarded"]["target"] == f"127.0.0.1:{port}"
    assert totals(by_kind["forwarded"]) == (6, 6)
    assert totals(session) == (6, 12)


@needs("ssh-agent", "ssh-add")
def test_a_connection_to_the_ssh_agent(fairlead: Fairlead, before: set[str]) -> None:
    words = ["ssh-agent", *fairlead.command("ssh", "-A"), "fl", "ssh-add -l; ssh-add -l"]
    subprocess.run(words, capture_output=True, timeout=60)
    kinds = Counter(program["kind"] for program in ended(fairlead, before)["programs"])
    assert kinds == {"exec": 1, "ssh-agent": 2}


def test_a_client_that_is_killed(fairlead: Fairlead, before: set[str]) -> None:
    with subprocess.Popen(
        [*fairlead.command("ssh"), "fl", "sleep 60"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        live(fairlead)
        client.kill()
    session = ended(fairlead, before)
    assert session["end_reason"] == "lost"
    assert session["programs"][0]["end_reason"] == "lost"


def test_what_a_client_did_not_take_is_not_counted(fairlead: Fairlead, before: set[str]) -> None:
    connection = paramiko_login(fairlead)
    channel = connection.open_session(window_size=100_000, max_packet_size=32_768)
    channel.exec_command("cat /dev/zero")
    until(lambda: live(fairlead)["bytes_to_client"] == 100_000, "the window is full")
    connection.close()
    assert totals(ended(fairlead, before)) == (0, 100_000)


# --------------------------------------------------------------------------------------------- kill


def test_a_connection_is_ended_with_a_sentence(fairlead: Fairlead, before: set[str]) -> None:
    with subprocess.Popen(
        [*fairlead.command("ssh", "-o", "LogLevel=INFO"), "fl", "sleep 60"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        session = live(fairlead)
        fairlead.cli("session", "kill", session["id"], "--reason", "maintenance at noon")
        assert client.wait(30) == 255
        assert client.stderr is not None
        assert b"ended by an operator: maintenance at noon" in client.stderr.read()
    session = ended(fairlead, before)
    assert (session["end_reason"], session["end_detail"]) == ("killed", "maintenance at noon")
    assert session["ended_by"].startswith("cli:")
    assert session["programs"][0]["end_reason"] == "killed"


def test_one_program_is_ended_and_the_others_go_on(
    fairlead: Fairlead, before: set[str], tmp_path: Path
) -> None:
    socket_path = f"/tmp/fl-{os.getpid()}.ctl"
    master = [*fairlead.command("ssh", "-M", "-S", socket_path), "fl", "cat"]
    with subprocess.Popen(master, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        until(lambda: Path(socket_path).exists(), "the master is there")
        second = subprocess.Popen(
            ["ssh", "-S", socket_path, "fl", "sleep 60"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        until(lambda: len(live(fairlead)["programs"]) == 2, "both programs are on record")
        (victim,) = [each for each in live(fairlead)["programs"] if each["command"] == "sleep 60"]
        fairlead.cli("session", "kill", victim["id"])
        assert second.wait(30) == 254
        assert second.stderr is not None
        assert b"fairlead: ended by an operator\n" in second.stderr.read()
        second.stderr.close()
        assert second.stdin is not None
        second.stdin.close()
        out, _ = first.communicate(b"still here\n", timeout=30)
        assert out == b"still here\n"
    session = ended(fairlead, before)
    assert session["end_reason"] == "left"
    assert {each["command"]: each["end_reason"] for each in session["programs"]} == {
        "cat": "exited",
        "sleep 60": "killed",
    }


def test_ending_all_of_a_user_or_nobody(fairlead: Fairlead, before: set[str]) -> None:
    fairlead.cli("user", "add", "bob", "--key", f"{fairlead.key}.pub")
    with subprocess.Popen(
        [*fairlead.command("ssh"), "fl", "sleep 60"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        live(fairlead)
        assert json.loads(fairlead.cli("session", "list", "--user", "bob", "--json")) == []
        fairlead.cli("session", "kill", "--user", "bob")
        assert client.poll() is None
        fairlead.cli("session", "kill", "--user", "alice")
        assert client.wait(30) == 255
    ended(fairlead, before)


# ---------------------------------------------------------------------------------- what may go wrong


def test_a_proxy_that_is_killed_has_its_records_closed_by_another(make_fairlead: MakeFairlead) -> None:
    quick = {
        "FAIRLEAD_SESSIONS__WRITE_EVERY_S": "0.3",
        "FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.05",
        "FAIRLEAD_SESSIONS__LOST_AFTER_S": "2",
        "FAIRLEAD_PROXY_ID": "first",
    }
    first = make_fairlead(quick)
    assert first.ssh("true").returncode == 0
    with subprocess.Popen(
        [*first.command("ssh"), "fl", "echo ready; cat >/dev/null; sleep 60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdout.readline()
        client.stdin.write(b"x" * 100_000)
        client.stdin.flush()
        until(lambda: live(first)["bytes_from_client"] == 100_000, "the counts are on record")
        id_ = live(first)["id"]
        first.stop(signal.SIGKILL)
        client.kill()
    last = show(first, id_)
    first.extra_env["FAIRLEAD_PROXY_ID"] = "second"
    first.start()
    until(lambda: bool(show(first, id_)["ended_at"]), "somebody closed the records")
    closed = show(first, id_)
    assert (closed["end_reason"], closed["proxy_id"]) == ("proxy_lost", "first")
    assert closed["ended_at"] == closed["updated_at"] >= last["updated_at"]
    assert totals(closed) == (100_000, 6)
    assert closed["programs"][-1]["end_reason"] == "proxy_lost"
    assert first.ssh("true").returncode == 0


def test_an_orderly_end_of_the_proxy_leaves_nothing_open(make_fairlead: MakeFairlead) -> None:
    server = make_fairlead({"FAIRLEAD_SHUTDOWN__GRACE_S": "0"})
    assert server.ssh("true").returncode == 0
    with subprocess.Popen(
        [*server.command("ssh"), "fl", "echo ready; sleep 60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        server.stop()
        client.wait(30)
    listed = json.loads(server.cli("session", "list", "--all", "--json"))
    assert [row["end_reason"] for row in listed] == ["shutdown", "left"]
    assert show(server, listed[0]["id"])["programs"][0]["end_reason"] == "shutdown"


def test_commands_are_kept_as_far_as_settings_say(make_fairlead: MakeFairlead) -> None:
    server = make_fairlead({"FAIRLEAD_SESSIONS__COMMAND_CHARS": "0"})
    assert server.ssh("echo secret >/dev/null").returncode == 0
    server.stop()
    (row,) = json.loads(server.cli("session", "list", "--all", "--json"))
    assert show(server, row["id"])["programs"][0]["command"] == ""
    assert b"secret" not in (server.home / "fairlead.db").read_bytes()


# -------------------------------------------------------------------------------------- the commands


def test_what_the_commands_show(fairlead: Fairlead, before: set[str]) -> None:
    with subprocess.Popen(
        [*fairlead.command("ssh"), "fl", "sleep 60"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        session = live(fairlead)
        (row,) = json.loads(fairlead.cli("session", "list", "--json"))
        assert {key: row[key] for key in ("id", "user", "doing", "client_type", "ended_at")} == {
            "id": session["id"],
            "user": "alice",
            "doing": "exec",
            "client_type": "OpenSSH",
            "ended_at": None,
        }
        assert fairlead.cli("session", "list").split("\t")[:2] == [session["id"], "alice"]
        shown = fairlead.cli("session", "show", session["id"])
        assert "sleep 60" in shown
        program = json.loads(fairlead.cli("session", "show", f"{session['id']}-1", "--json"))
        assert (program["session"], program["command"]) == (session["id"], "sleep 60")
        watch = subprocess.Popen(
            [sys.executable, "-m", "proxy", "session", "watch", "--json", "--every", "0.2"],
            env=fairlead.env(),
            stdout=subprocess.PIPE,
        )
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["change"] == "opened"
        client.kill()
        changes = iter(watch.stdout.readline, b"")
        assert any(json.loads(line)["change"] == "closed" for line in changes)
        watch.kill()
        watch.wait(30)
        watch.stdout.close()
    ended(fairlead, before)
    listed = json.loads(fairlead.cli("session", "list", "--all", "--user", "alice", "--json"))
    assert listed[0]["id"] == session["id"]
    assert (listed[0]["end_reason"], listed[0]["doing"]) == ("lost", "exec")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "nobody"), "there is no session nobody on record"),
        (("kill", "nobody"), "there is no session nobody on record"),
        (("kill",), "name sessions, a --user or a --workspace"),
    ],
)
def test_what_the_commands_refuse(fairlead: Fairlead, words: tuple[str, ...], sentence: str) -> None:
    done = fairlead.run("session", *words)
    assert done.returncode in (1, 2)
    assert sentence in done.stderr
