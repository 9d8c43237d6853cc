"""Blueprints: descriptions of workspaces, their sources and their inheritance. `workspaces` runs them."""
