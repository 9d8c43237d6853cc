"""Where workspaces run. What they look like is `blueprints`; talking to one is `upstream`."""
