"""State that replicas share: buckets of keys and values, in NATS or in a file."""
