"""Generic HTTP: a client, a site for own pages, browser sessions, and the hand-over between replicas."""
