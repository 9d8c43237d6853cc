"""SSH towards the client; the only importer of asyncssh. Decisions are made behind `gateway`."""
