"""What holds on a real cluster only; see `conftest`."""
