"""Messages of the wire as values of the model, and back."""

import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from proxy import model
from proxy.errors.programs import OpenFailedKind, ProgramNotStartedKind
from proxy.errors.upstream import UpstreamLost
from proxy.upstream import frames
from tests.fakes.visits import visit_of


@pytest.fixture
def visit() -> model.Visit:
    peer = model.Peer(model.ConnId("c"), "192.0.2.7", 4711, "192.0.2.1", 22)
    return visit_of("alice+dev+user=postgres", peer=peer)


def test_a_program_is_asked_for_with_all_that_the_channel_said(visit: model.Visit) -> None:
    pty = model.Pty("xterm", model.WindowSize(80, 24, 640, 480), {53: 1})
    spec = model.ProgramSpec(model.Exec("id"), {"LANG": "C"}, pty, "agent-1", user_rc=True)
    assert frames.start(spec, visit, "p1") == pb.RunInput(
        start=pb.Start(
            exec=b"id",
            env={"LANG": b"C"},
            pty=pb.Pty(
                term="xterm",
                window=pb.WindowSize(columns=80, rows=24, width_px=640, height_px=480),
                modes={53: 1},
            ),
            account="postgres",
            ssh_agent="agent-1",
            program_id="p1",
            user_rc=True,
            client=pb.Client(host="192.0.2.7", port=4711, server_host="192.0.2.1", server_port=22),
        )
    )


def test_a_shell_without_anything_is_still_a_shell(visit: model.Visit) -> None:
    message = frames.start(model.ProgramSpec(model.Shell()), visit, "p").start
    assert message.WhichOneof("kind") == "shell"
    assert not message.HasField("pty")


def test_every_code_of_the_wire_has_a_kind_of_ours() -> None:
    for code in pb.OpenFailed.Code.values():
        if code != pb.OpenFailed.CODE_UNSPECIFIED:
            assert frames.open_failed(pb.OpenFailed(code=code)).kind.name == pb.OpenFailed.Code.Name(code)
    for code in pb.StartFailed.Code.values():
        if code != pb.StartFailed.CODE_UNSPECIFIED:
            assert frames.not_started(pb.StartFailed(code=code)).kind.name == pb.StartFailed.Code.Name(code)


def test_a_code_of_a_newer_shelld_is_not_a_bug() -> None:
    assert frames.open_failed(pb.OpenFailed(reason="x")).kind is OpenFailedKind.REFUSED
    assert frames.not_started(pb.StartFailed()).kind is ProgramNotStartedKind.RESOURCES


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (pb.RunOutput(exit=pb.Exit(status=0)), model.ExitStatus(0)),
        (
            pb.RunOutput(exit=pb.Exit(signal=pb.ExitSignal(name="KILL", core_dumped=True))),
            model.ExitSignal("KILL", core_dumped=True),
        ),
        (pb.RunOutput(stdout_eof=pb.Eof()), frames.StdoutEof()),
        (pb.RunOutput(stdin_consumed=9), frames.StdinConsumed(9)),
        (pb.RunOutput(stderr=b"e"), frames.Output(memoryview(b"e"), is_stderr=True)),
        (pb.RunOutput(), None),
    ],
)
def test_what_a_program_does_is_read(message: pb.RunOutput, value: object) -> None:
    assert frames.output(message) == value


def test_a_second_start_breaks_the_protocol() -> None:
    with pytest.raises(UpstreamLost):
        frames.output(pb.RunOutput(started=pb.Started(pid=1)))


RESERVED = model.Reserved(frozenset({2222, 22}), ("/state",))
OURS = pb.Reserved(ports=[22, 2222], directories=["/state"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (model.TcpTarget("h", 1), pb.Target(tcp=pb.TcpAddress(host="h", port=1), account="a", reserved=OURS)),
        (model.UnixTarget("/s"), pb.Target(unix_path=b"/s", account="a", reserved=OURS)),
    ],
)
def test_targets_are_carried(target: model.Target, message: pb.Target) -> None:
    assert frames.target(target, "a", RESERVED) == pb.ConnectionInput(dial=message)


def test_binds_are_carried() -> None:
    bind = frames.bind(model.SshAgentBind("s.sock"), "id", "a", RESERVED)
    assert bind == pb.ListenRequest(ssh_agent="s.sock", listener_id="id", account="a", reserved=OURS)
