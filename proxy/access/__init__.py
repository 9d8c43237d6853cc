"""The road of a login, a program and a forward, whatever protocol the client speaks, and the policy that is asked."""
