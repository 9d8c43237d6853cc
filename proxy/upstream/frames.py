"""Conversion between protobuf messages and values of `model`. Pure; no other module sees a message."""

from dataclasses import dataclass

from protos.shelld.v1 import shelld_pb2 as pb
from proxy import model
from proxy.errors.programs import OpenFailed, OpenFailedKind, ProgramNotStarted, ProgramNotStartedKind
from proxy.errors.upstream import UpstreamLost
from proxy.octets import bytes_of

VERSION = pb.Version(major=1, minor=5)

_MAX_NOTICE = 1_000
_MOST_SCRIPTS = 32

_OPEN_FAILED = {
    pb.OpenFailed.PROHIBITED: OpenFailedKind.PROHIBITED,
    pb.OpenFailed.REFUSED: OpenFailedKind.REFUSED,
    pb.OpenFailed.UNREACHABLE: OpenFailedKind.UNREACHABLE,
    pb.OpenFailed.TIMED_OUT: OpenFailedKind.TIMED_OUT,
    pb.OpenFailed.NOT_FOUND: OpenFailedKind.NOT_FOUND,
    pb.OpenFailed.PERMISSION: OpenFailedKind.PERMISSION,
    pb.OpenFailed.RESOURCES: OpenFailedKind.RESOURCES,
    pb.OpenFailed.ADDRESS_IN_USE: OpenFailedKind.ADDRESS_IN_USE,
    pb.OpenFailed.INVALID: OpenFailedKind.INVALID,
}

_NOT_STARTED = {
    pb.StartFailed.NOT_FOUND: ProgramNotStartedKind.NOT_FOUND,
    pb.StartFailed.NOT_EXECUTABLE: ProgramNotStartedKind.NOT_EXECUTABLE,
    pb.StartFailed.NO_SUCH_ACCOUNT: ProgramNotStartedKind.NO_SUCH_ACCOUNT,
    pb.StartFailed.ACCOUNT_DENIED: ProgramNotStartedKind.ACCOUNT_DENIED,
    pb.StartFailed.NO_PTY: ProgramNotStartedKind.NO_PTY,
    pb.StartFailed.RESOURCES: ProgramNotStartedKind.RESOURCES,
    pb.StartFailed.INVALID: ProgramNotStartedKind.INVALID,
}


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a program or a connection sent, 1 to the link's largest frame; uncopied."""

    data: memoryview
    is_stderr: bool = False


@dataclass(frozen=True, slots=True)
class StdoutEof:
    """The program closed its stdout and goes on."""


@dataclass(frozen=True, slots=True)
class StdinConsumed:
    """The program took this many bytes of stdin; as many more may be sent."""

    count: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence of the workspace for the user, which is no output of the program."""

    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a workspace, as it reports it."""

    programs: int
    connections: int
    idle_s: float
    """Seconds since anything was active."""
    uptime_s: float
    draining: bool
    failed_scripts: tuple[str, ...] = ()
    """A sentence for each init script of this start that failed."""
    why: str = ""
    """The last activity that a proxy reported; empty: none since the start, or an older shelld."""
    why_s: float = 0
    """Seconds since then."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that waits in the workspace to be claimed."""

    connection_id: str
    peer_host: str
    """Empty for a Unix socket."""
    peer_port: int


def start(spec: model.ProgramSpec, visit: model.Visit, program_id: str) -> pb.RunInput:
    """Return the first frame of a Run, with the program to run."""
    peer = visit.principal.client
    message = pb.Start(
        env={name: bytes_of(value) for name, value in spec.env.items()},
        account=visit.account,
        ssh_agent=spec.ssh_agent,
        original_command=bytes_of(spec.original_command),
        user_rc=spec.user_rc,
        program_id=program_id,
        client=pb.Client(
            host=peer.host, port=peer.port, server_host=peer.server_host, server_port=peer.server_port
        ),
    )
    match spec.kind:
        case model.Shell():
            message.shell.SetInParent()
        case model.Exec(command):
            message.exec = bytes_of(command)
        case model.Subsystem(name):
            message.subsystem = bytes_of(name)
    if spec.pty is not None:
        message.pty.CopyFrom(
            pb.Pty(term=spec.pty.term, window=window_size(spec.pty.window), modes=dict(spec.pty.modes))
        )
    return pb.RunInput(start=message)


def window_size(size: model.WindowSize) -> pb.WindowSize:
    """Convert a terminal's size; the SSH side has refused values above 32 bits."""
    return pb.WindowSize(
        columns=size.columns, rows=size.rows, width_px=size.width_px, height_px=size.height_px
    )


def _reserved(value: model.Reserved) -> pb.Reserved:
    return pb.Reserved(ports=sorted(value.ports), directories=value.directories)


def target(
    value: model.Target, account: str, reserved: model.Reserved, *, quiet: bool = False
) -> pb.ConnectionInput:
    """Return the first frame of a Dial, with the address to connect to."""
    message = pb.Target(account=account, reserved=_reserved(reserved), quiet=quiet)
    match value:
        case model.TcpTarget(host, port):
            message.tcp.CopyFrom(pb.TcpAddress(host=host, port=port))
        case model.UnixTarget(path):
            message.unix_path = bytes_of(path)
        case model.AppTarget(slug):
            message.app = slug
    return pb.ConnectionInput(dial=message)


def bind(value: model.Bind, listener_id: str, account: str, reserved: model.Reserved) -> pb.ListenRequest:
    """Return the request to listen at an address."""
    message = pb.ListenRequest(listener_id=listener_id, account=account, reserved=_reserved(reserved))
    match value:
        case model.TcpTarget(host, port):
            message.tcp.CopyFrom(pb.TcpAddress(host=host, port=port))
        case model.UnixTarget(path):
            message.unix_path = bytes_of(path)
        case model.SshAgentBind(file_name):
            message.ssh_agent = file_name
    return message


def open_failed(message: pb.OpenFailed) -> OpenFailed:
    """Convert the workspace's refusal; an unknown code counts as refused."""
    return OpenFailed(_OPEN_FAILED.get(message.code, OpenFailedKind.REFUSED), message.reason)


def not_started(message: pb.StartFailed) -> ProgramNotStarted:
    """Convert a failed start; an unknown code counts as a lack of resources."""
    return ProgramNotStarted(_NOT_STARTED.get(message.code, ProgramNotStartedKind.RESOURCES), message.reason)


def exit_of(message: pb.Exit) -> model.Exit:
    """Convert an exit into a status or a signal."""
    if message.WhichOneof("end") == "signal":
        return model.ExitSignal(message.signal.name, message.signal.core_dumped)
    return model.ExitStatus(message.status)


def status(message: pb.StatusReply) -> Status:
    """Convert the state of a workspace."""
    return Status(
        message.programs,
        message.connections,
        message.idle_ms / 1000,
        message.uptime_ms / 1000,
        message.draining,
        tuple(_failed_script(one) for one in message.failed_scripts[:_MOST_SCRIPTS]),
        one_line(message.why),
        message.why_ms / 1000,
    )


def _failed_script(message: pb.FailedScript) -> str:
    """Describe the result of an init script, in words of the workspace."""
    said = f" and said: {message.said}" if message.said else ""
    return one_line(f"init script {message.name} {message.how}{said}")


def one_line(text: str) -> str:
    """Return text of the workspace as one short line without control characters."""
    return "".join(one if one.isprintable() else " " for one in text[:_MAX_NOTICE])


def output(message: pb.RunOutput) -> Output | StdoutEof | StdinConsumed | Notice | model.Exit | None:
    """Convert one frame after `started`; return None for an unknown one.

    Raises: UpstreamLost for a frame that breaks the order of the protocol.
    """
    match message.WhichOneof("frame"):
        case "stdout" | "stderr" as name:  # only with an encoder other than ours
            return Output(memoryview(getattr(message, name)), is_stderr=name == "stderr")
        case "exit":
            return exit_of(message.exit)
        case "stdout_eof":
            return StdoutEof()
        case "stdin_consumed":
            return StdinConsumed(message.stdin_consumed)
        case "notice":
            return Notice(one_line(message.notice))
        case "started" | "start_failed" as frame:
            raise UpstreamLost(f"shelld sent {frame} twice")
        case _:
            return None
