"""The proxy of Fairlead: login over SSH, choice of a workspace, and transport of bytes to it.

Inside a workspace runs shelld, a program of its own; `protos` is the only code that both share.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fairlead")
except PackageNotFoundError:  # a bare checkout that is not installed
    __version__ = "0+unknown"
