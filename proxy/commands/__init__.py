"""Groups of commands of the command line; `cli` puts them together."""
