"""Who is connected and what they do: records, live view, limits, and the way to end a session."""
