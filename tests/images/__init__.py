"""Images: built for real, and run by a real dockerd."""
