"""The app `files`: a folder of the workspace in the browser. A program of its own, which runs as the account.

It needs the interpreter of shelld and its standard library only, and listens on a Unix socket.
"""
