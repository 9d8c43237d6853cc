"""Budgets for what a client asks before it is logged in, so that none of it can be repeated without end.

A request counts when it leads nowhere: it failed, or another request came in its place. Keys have a budget of
their own, because an ssh-agent offers many before the right one. Everything else shares the other budget:
methods that are not offered; prompts, services and key exchanges that are asked for again.
Pure; the caller ends the connection. Source: RFC 4252 §4, which recommends a limit.
"""

NONE = "none"
PUBLICKEY = "publickey"
SERVICE = "service request"
KEY_EXCHANGE = "key exchange"


class Attempts:
    """The two budgets of one connection."""

    def __init__(self, max_failures: int, max_keys: int) -> None:
        """More than `max_keys` keys are too many, and so is failure number `max_failures` of the rest."""
        self._failures_left = max_failures
        self._keys_left = max_keys
        self._may_ask_none = True
        self._pending = ""

    @property
    def is_over(self) -> bool:
        """Whether one of the budgets is used up."""
        return self._failures_left <= 0 or self._keys_left < 0

    def asked(self, what: str, *, proves: bool = False) -> None:
        """Note a request before it is looked at; `proves` is one with the signature of a key.

        A signature goes on with the key that was offered before, and a method with the service of its own.
        """
        goes_on = (self._pending == SERVICE and what != SERVICE) or (
            self._pending == PUBLICKEY and what == PUBLICKEY and proves
        )
        if self._pending and not goes_on:
            self._count(self._pending)
        self._pending = what

    def failed(self, what: str) -> None:
        """Note that a request failed."""
        self._pending = ""
        self._count(what)

    def led_on(self) -> None:
        """Note that a request got the client further (partial success, RFC 4252 §5.1)."""
        self._pending = ""

    def _count(self, what: str) -> None:
        if what == PUBLICKEY:
            self._keys_left -= 1
        elif what == NONE and self._may_ask_none:
            self._may_ask_none = False  # how a client learns which methods there are (RFC 4252 §5.2)
        else:
            self._failures_left -= 1
