"""The road of a login, a program and a forward, for any protocol, and the policy that is asked."""
