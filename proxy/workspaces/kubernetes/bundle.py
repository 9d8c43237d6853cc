"""Commands of init and main containers, by which a pod of any image runs shelld. Pure.

The init container is of the shelld image, which holds nothing but the bundle, and copies that into an
`emptyDir`. The main container is of any image and starts shelld by the bundle's own loader and
interpreter. Neither needs a shell, a libc of the image, root, or any environment variable; so both
leave `env` of their containers alone.
"""

from collections.abc import Sequence

IMAGE_ROOT = "/fairlead"
"""Where the shelld image has the bundle."""

POD_ROOT = "/opt/fairlead"
"""Where both containers mount the `emptyDir`; the main container read-only."""

PORT = 2822
CONFIG_FILE = "/etc/fairlead/workspace/shelld.json"
TRUST_DIRECTORY = "/etc/fairlead/trust"
"""Holds tls.crt, tls.key, client-ca.crt and token.key."""


def init_command(root: str = POD_ROOT) -> list[str]:
    """Return the command that fills the directory at `root`."""
    return [*_python(IMAGE_ROOT), f"{IMAGE_ROOT}/app/shelld/bundle.py", root]


def main_command(
    *, root: str = POD_ROOT, config: str = CONFIG_FILE, trust: str = TRUST_DIRECTORY, more: Sequence[str] = ()
) -> list[str]:
    """Return the command that serves the workspace on PORT, of every address.

    `more` is appended: `--log-level debug`, say.
    """
    return [
        *_python(root),
        f"{root}/app",
        *("--listen", f"tcp://[::]:{PORT}"),
        *("--config", config),
        *("--tls-cert", f"{trust}/tls.crt"),
        *("--tls-key", f"{trust}/tls.key"),
        *("--tls-client-ca", f"{trust}/client-ca.crt"),
        *("--token-key", f"{trust}/token.key"),
        *more,
    ]


def _python(root: str) -> list[str]:
    """Start the bundle's interpreter, blind for PYTHON* variables and for packages of the image."""
    return [f"{root}/lib/ld.so", "--library-path", f"{root}/lib", f"{root}/bin/python3", "-I", "-S"]
