"""One module per kind of row; each function takes a `Bench` and returns the lines of its row."""
