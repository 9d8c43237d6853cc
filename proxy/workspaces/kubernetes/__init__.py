"""Workspaces as pods of a cluster. Imported only when that backend is chosen: its client is slow to load."""
