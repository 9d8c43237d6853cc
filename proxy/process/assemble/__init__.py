"""The choice of implementations by the settings: one module for each part, for the proxy and for commands."""
