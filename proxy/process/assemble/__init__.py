"""The parts of a process, for the proxy and for commands: one module opens, starts and closes each."""
