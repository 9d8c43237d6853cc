"""Bans, and resource limits for unauthenticated connections."""
