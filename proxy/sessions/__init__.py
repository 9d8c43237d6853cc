"""Sessions: records, a live view, limits and kill orders of connections and of their channels."""
