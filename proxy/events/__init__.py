"""Events as values, their subjects, and the bus that carries them."""
