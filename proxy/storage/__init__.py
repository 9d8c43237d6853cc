"""The database: how it is reached, bounded and brought up to date. What is in it belongs to those who ask."""
