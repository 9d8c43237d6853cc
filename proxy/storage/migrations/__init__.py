"""Steps of the database schema, one file each; `migrate` runs the missing ones at start.

An old proxy may still run while a new one upgrades, so a step adds and never removes what the release before
it reads. Only a backup leads back.
"""
