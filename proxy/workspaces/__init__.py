"""Workspaces: their backends, starts, limits and ends.

`blueprints` describes them; `upstream` connects to them.
"""
