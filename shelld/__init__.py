"""shelld: the agent inside a workspace, which runs programs and carries their bytes.

One process per workspace, often its PID 1. It serves `protos/shelld/v1` to the proxy and shares
nothing else with it. The road of one program, module by module: `service` (the wire) → `program`
→ `account`, `environ`, `pty` → `launch` (asks the launcher process to fork and exec) → `fds` (bytes)
→ `reaper` (exit status) or `farewell` (the client went away).
"""

__version__ = "0.1.0"
