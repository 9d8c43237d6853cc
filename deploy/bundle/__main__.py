"""`python3 -m deploy.bundle --output DIR`: make the bundle with this very interpreter."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.bundle import recipe

CEILING_MIB = 120


def main() -> None:
    """Make the bundle and say how large it is; exits 1 with a sentence when it is not fit to be used."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.bundle", description=main.__doc__)
    parser.add_argument("--output", required=True, type=Path, help="a directory that does not exist yet")
    parser.add_argument("--source", type=Path, default=Path(), help="a checkout of Fairlead")
    arguments = parser.parse_args()
    try:
        size = recipe.make(arguments.output.absolute(), arguments.source.absolute())
    except recipe.BundleError as error:
        sys.exit(f"bundle: {error}")
    mib = size.octets / 2**20
    sys.stdout.write(f"bundle: {mib:.1f} MiB in {size.files} files at {arguments.output}\n")
    if mib > CEILING_MIB:
        sys.exit(f"bundle: larger than {CEILING_MIB} MiB; something that is not needed crept in")


if __name__ == "__main__":
    main()
