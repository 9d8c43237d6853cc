"""Files that are written once, by the first of several processes."""

import os
import secrets
from pathlib import Path


def create_once(file: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that appears whole, in a private directory; an existing file stays as it is.

    `mode` is that of the file, less the umask. Raises: OSError.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            return
    finally:
        draft.unlink()
