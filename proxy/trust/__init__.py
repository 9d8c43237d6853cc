"""Who may talk to a workspace, and how a workspace proves which one it is."""
