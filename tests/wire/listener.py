"""Somebody who listens to the events on a real nats-server, in the plain protocol of NATS."""

import json
import socket
import threading
import time
from typing import Any, Self

from tests.wire.peers import PATIENCE_S


class Ears:
    """Everything below `fairlead` since `with` began: subject and CloudEvent, in order."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.raw = b""
        """Every payload, as it came."""
        self._link = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._stream = self._link.makefile("rb")
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._link.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB fairlead.> 1\r\nPING\r\n')
        while b"PONG" not in self._stream.readline():
            pass
        self._link.settimeout(None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._stream.close()
        self._link.close()

    def of(self, user: str) -> list[tuple[str, dict[str, Any]]]:
        """Give subject and data of what was told about a user's logins and standing so far."""
        return [
            (subject, event["data"])
            for subject, event in self.heard
            if event["data"]["user"] == user and subject.startswith(("fairlead.auth.", "fairlead.user."))
        ]

    def wait(self, user: str, *subjects: str) -> list[dict[str, Any]]:
        """Wait until exactly these were told about a user, in this order; give their data."""
        deadline = time.monotonic() + 15
        while (said := [subject for subject, _ in self.of(user)]) != list(subjects):
            assert time.monotonic() < deadline, f"heard about {user}: {self.of(user)}"
            assert said == list(subjects[: len(said)]), f"heard about {user}: {self.of(user)}"
            time.sleep(0.02)
        return [data for _, data in self.of(user)]

    def _listen(self) -> None:
        while line := self._stream.readline():
            if line.startswith(b"PING"):
                self._link.sendall(b"PONG\r\n")
            elif line.startswith(b"MSG "):
                subject, size = line.split()[1].decode(), int(line.split()[-1])
                payload = self._stream.read(size + 2)[:-2]
                self.raw += payload + b"\n"
                self.heard.append((subject, json.loads(payload)))
