"""The SSH server, which is the only importer of asyncssh. Decisions are made by `access`."""
