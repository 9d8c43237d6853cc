"""Conversion between messages about apps and values of `model`. Pure."""

from protos.shelld.v1 import shelld_pb2 as pb
from proxy import model
from proxy.octets import bytes_of, text_of
from proxy.upstream.frames import exit_of, one_line

_MOST_LINES = 20
_RESTARTS = {
    "on-failure": pb.AppSpec.ON_FAILURE,
    "always": pb.AppSpec.ALWAYS,
    "no": pb.AppSpec.NO,
}
_PHASES = {
    pb.AppState.STOPPED: model.AppPhase.STOPPED,
    pb.AppState.STARTING: model.AppPhase.STARTING,
    pb.AppState.READY: model.AppPhase.READY,
    pb.AppState.BACKOFF: model.AppPhase.BACKOFF,
    pb.AppState.FAILED: model.AppPhase.FAILED,
}


def ensure(spec: model.AppSpec, *, automatic: bool) -> pb.EnsureAppRequest:
    """Return the request to start an app unless it runs."""
    message = pb.AppSpec(
        slug=spec.slug,
        start=bytes_of(spec.start),
        env={name: bytes_of(value) for name, value in spec.env.items()},
        account=spec.account,
        workdir=bytes_of(spec.workdir),
        listen=pb.AppListen(socket=bytes_of(spec.socket))
        if spec.port is None
        else pb.AppListen(port=spec.port),
        restart=_RESTARTS[spec.restart],
        ready=pb.AppReady(path=bytes_of(spec.ready_path), within_ms=max(1, int(spec.within_s * 1000))),
        digest=spec.digest,
    )
    return pb.EnsureAppRequest(spec=message, automatic=automatic)


def state(message: pb.AppState) -> model.AppState:
    """Convert the state of an app; an unknown phase counts as failed."""
    return model.AppState(
        slug=message.slug,
        phase=_PHASES.get(message.phase, model.AppPhase.FAILED),
        reason=one_line(message.reason),
        exit=exit_of(message.exit) if message.HasField("exit") else None,
        restarts=message.restarts,
        since_s=message.since_ms / 1000,
        port=message.port,
        socket=text_of(message.socket),
        pid=message.pid,
        log_lines=tuple(one_line(line) for line in message.log_lines[-_MOST_LINES:]),
        digest=message.digest,
        stopped=message.stopped,
    )
