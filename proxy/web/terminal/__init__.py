"""The terminal in the browser: an app of every workspace that the proxy serves itself."""
