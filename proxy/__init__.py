"""The SSH side of Fairlead: who logs in, where the workspace is, and the bytes between.

What runs inside a workspace is shelld, a program of its own; `protos` is all the two share.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fairlead")
except PackageNotFoundError:  # a bare checkout that nobody installed
    __version__ = "0+unknown"
