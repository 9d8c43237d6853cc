"""The web half: each app of a workspace on an origin of its own, reached over the road of a forward."""
