"""Steps of the database schema, one file each; `migrate` runs those that are missing at start.

An old proxy may still be running while a new one upgrades, so a step adds and never takes away what
the release before it reads. There is no way back but a backup.
"""
