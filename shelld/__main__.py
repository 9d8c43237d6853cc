"""The process: argv to settings, launcher first, then everything that has threads."""

from __future__ import annotations

import asyncio
import sys

from shelld import settings as settings_
from shelld.errors import SettingsError

EX_CONFIG = 78


def main() -> None:
    """Serve until a signal or idleness ends it; exit 0, 78 for bad settings, 75 for a taken socket."""
    try:
        settings = settings_.load(sys.argv[1:])
    except SettingsError as error:
        sys.stderr.write(f"shelld: {error}\n")
        sys.exit(EX_CONFIG)
    settings_.prepare_process()
    from shelld.launch import fork_launcher

    requests = fork_launcher()  # before gRPC is imported: it starts threads

    from shelld.app import serve

    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    sys.exit(run(serve(settings, requests)))


if __name__ == "__main__":
    main()
