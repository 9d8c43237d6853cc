"""Who somebody is: users and their keys, and what proves them. Nothing here speaks SSH."""
