"""Programs of the workspace: what they are started with, their terminals, streams and ends."""
