"""Programs of the workspace: their commands, terminals, streams and ends."""
