"""One process of the proxy: its start and end, its health page, and the assembly of its parts."""
