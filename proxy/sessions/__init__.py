"""Sessions: records, a live view, limits and kill orders of connections and of what runs on them."""
