"""The local backend: each workspace is a shelld process of this machine."""
