"""`python3 -m deploy.bundle.lock FILE NAME…`: print the part of a lock file that pins these packages."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.bundle.recipe import BundleError, locked

if __name__ == "__main__":
    try:
        sys.stdout.write(locked(Path(sys.argv[1]).read_text(), sys.argv[2:]))
    except (BundleError, OSError) as error:
        sys.exit(f"lock: {error}")
