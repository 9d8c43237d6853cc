"""A client that sends what it likes in the order it likes: single messages of RFC 4252 and RFC 4256."""

import queue
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.message import Message

SERVICE_REQUEST, SERVICE_ACCEPT = 5, 6
REQUEST, FAILURE, SUCCESS, BANNER = 50, 51, 52, 53
SIXTY, INFO_RESPONSE = 60, 61
PATIENCE_S = 60

Said = tuple[Any, ...]
"""("failure", methods, partial) · ("success",) · ("key is welcome",) · ("shown", text) · ("disconnect", text)
· ("gone",)"""


class RawClient(paramiko.Transport):
    """`with RawClient(port) as client`: past the key exchange, nothing said about anybody yet."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port))
        self.heard: queue.Queue[Said] = queue.Queue()
        self.banners = ""
        self._asked_by_key = False
        self.auth_handler = _Listening(self)
        self.start_client(timeout=PATIENCE_S)
        self._say(SERVICE_REQUEST, "ssh-userauth")
        assert self.hear() == ("service",)

    def hear(self, timeout_s: float = PATIENCE_S) -> Said:
        """Wait for the next thing that the server says; banners are kept beside."""
        try:
            return self.heard.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError("the server says nothing") from None

    def hears_nothing(self, for_s: float) -> bool:
        try:
            raise AssertionError(f"the server said {self.heard.get(timeout=for_s)}")
        except queue.Empty:
            return True

    # ---------------------------------------------------------------------------------- requests

    def offer(self, user: str, key: paramiko.PKey) -> None:
        """Ask whether a key would do, without using it."""
        self._asked_by_key = True
        self._say(REQUEST, user, "ssh-connection", "publickey", False, key.get_name(), key.asbytes())

    def prove(self, user: str, key: paramiko.PKey, *, signed_by: paramiko.PKey | None = None) -> None:
        """Sign with a key; `signed_by` another one than is named is a forgery."""
        self._asked_by_key = True
        asked = (user, "ssh-connection", "publickey", True, key.get_name(), key.asbytes())
        signed = Message()
        signed.add_string(self.session_id)
        for part in _parts(REQUEST, *asked):
            signed.add_bytes(part)
        self._say(
            REQUEST, *asked, (signed_by or key).sign_ssh_data(signed.asbytes(), key.get_name()).asbytes()
        )

    def keyboard(self, user: str) -> None:
        """Ask for keyboard-interactive."""
        self._asked_by_key = False
        self._say(REQUEST, user, "ssh-connection", "keyboard-interactive", "", "")

    def answer(self, *answers: str) -> None:
        """Answer the prompts, of which there are none as a rule."""
        self._say(INFO_RESPONSE, len(answers), *answers)

    def open_session(self, *args: Any, **kwargs: Any) -> paramiko.Channel:
        raise NotImplementedError

    def asks_for_a_shell(self) -> None:
        """Open a session without having been let in."""
        self._say(90, "session", 0, 65_536, 32_768)

    def _say(self, kind: int, *values: "str | bytes | bool | int") -> None:
        message = Message()
        for part in _parts(kind, *values):
            message.add_bytes(part)
        self._send_message(message)

    # ----------------------------------------------------------------------------------- answers

    def _parse_disconnect(self, m: Message) -> None:
        m.get_int()
        self.heard.put(("disconnect", m.get_text()))

    def run(self) -> None:
        super().run()
        self.heard.put(("gone",))


class _Listening:
    """What paramiko takes for its state of the login."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._handler_table: dict[int, Callable[[Message], None]] = {
            SERVICE_ACCEPT: lambda m: self._put("service"),
            FAILURE: lambda m: self._put("failure", m.get_list(), m.get_boolean()),
            SUCCESS: lambda m: self._put("success"),
            BANNER: self._banner,
            SIXTY: self._sixty,
        }

    def _put(self, *said: Any) -> None:
        self._client.heard.put(said)

    def _banner(self, m: Message) -> None:
        self._client.banners += m.get_text()

    def _sixty(self, m: Message) -> None:
        if self._client._asked_by_key:
            self._put("key is welcome")
        else:
            self._put("shown", m.get_text() + "\n" + m.get_text())

    def is_authenticated(self) -> bool:
        return False

    def get_username(self) -> str:
        return ""

    def abort(self) -> None:
        pass


def _parts(kind: int, *values: "str | bytes | bool | int") -> list[bytes]:
    parts = [bytes([kind])]
    for value in values:
        part = Message()
        if isinstance(value, bool):
            part.add_boolean(value)
        elif isinstance(value, int):
            part.add_int(value)
        else:
            part.add_string(value)
        parts.append(part.asbytes())
    return parts
