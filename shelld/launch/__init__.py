"""Starting processes: the launcher, accounts, descriptors, and reaping."""
