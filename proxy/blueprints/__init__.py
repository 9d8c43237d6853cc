"""What a workspace should look like. Where it runs is `workspaces`."""
