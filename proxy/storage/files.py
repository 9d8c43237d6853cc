"""Files that are written once, by the first of several processes."""

import os
import secrets
from pathlib import Path


def create_private(file: Path, data: bytes) -> None:
    """Write a file (mode 0600) that appears whole; a file that another process made first stays as it is.

    Raises: OSError.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
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
