"""Connections from and to the workspace: dial, listen, and the rules for both."""
