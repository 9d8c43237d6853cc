"""Programs in Python: each runs the rows by one library."""
