"""Who must not get in, and how much of us those may have who are not in yet."""
