"""The command line: words in, one of our modules called, a table or JSON out."""
