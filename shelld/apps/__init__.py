"""Web apps of the workspace: their start, readiness, restarts, logs and end."""
