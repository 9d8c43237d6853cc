"""The start of processes: the launcher, accounts, descriptors, and reaping."""
