"""What happened in a session, kept: terminals as asciicasts, sftp as operations, forwards as totals.

A recording is a body of lines, which its chain seals block by block, and a signed manifest beside it. It
depends on nothing but its store, so it can be listed, verified and replayed without any database.
"""
