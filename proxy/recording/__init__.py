"""Recordings of sessions: terminals as asciicasts, sftp as operations, forwards as totals.

A recording is a body of lines, sealed block by block by its chain, and a signed manifest. It needs nothing
but its store, so it can be listed, verified and replayed without any database.
"""
