"""shelld: the agent inside a workspace, which runs programs and carries their bytes.

One process per workspace, often its PID 1. It serves `protos/shelld/v1` to the proxy and shares nothing else
with it. The modules of one program, in order: `rpc.service` (the wire) → `programs.program` →
`launch.account`, `programs.environ`, `programs.pty` → `launch.launch` (asks the launcher process to fork and
exec) → `launch.fds` (bytes) → `launch.reaper` (exit status) or `programs.hangup` (after the loss of the
client).
"""

__version__ = "0.1.0"
