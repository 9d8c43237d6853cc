"""Identity providers: what each calls its endpoints, and what its answers mean. One module a kind."""
