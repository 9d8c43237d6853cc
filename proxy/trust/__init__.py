"""Mutual trust of proxies and workspaces: certificates, keys and tokens."""
