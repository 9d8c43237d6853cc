"""Stands in for shelld where only its life and death matter: listens, notes that it ran, ends on TERM.

--behave good         as a shelld should
         mute         never listens
         fail         says why, and ends with status 3
         stubborn     ignores TERM
         leave        unlinks its socket on TERM, and ends half a second later
"""

import argparse
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--behave", default="good")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--config", required=True, type=Path)
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    home = Path(config["account"]["home"])
    with (home / "starts").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    (home / "environ.json").write_text(json.dumps(dict(os.environ)))
    if args.behave == "fail":
        sys.stderr.write("the moon is in the wrong quarter\n")
        sys.exit(3)
    if args.behave == "mute":
        threading.Event().wait()
    path = args.listen.removeprefix("unix://")
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Path(path).unlink(missing_ok=True)

    def end(*_: object) -> None:
        if args.behave == "stubborn":
            return
        Path(path).unlink(missing_ok=True)
        if args.behave == "leave":
            time.sleep(0.5)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            listener.accept()[0].close()


if __name__ == "__main__":
    main()
