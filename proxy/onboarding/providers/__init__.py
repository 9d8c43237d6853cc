"""Identity providers: their endpoints and the meaning of their answers. One module a kind."""
