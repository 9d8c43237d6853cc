"""What is said about what happened: events as values, their subjects, and the bus that carries them."""
