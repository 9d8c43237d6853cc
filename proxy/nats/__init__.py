"""The NATS connection, which events and shared state use."""
