"""The database: connections, deadlines and migrations. The content belongs to the packages that use it."""
