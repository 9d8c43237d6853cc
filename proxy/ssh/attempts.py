"""Budgets for the requests of one client before its login.

A request counts when it failed or when another request replaced it. Keys have a budget of their own, because
an ssh-agent offers many keys before the right one. All other requests share the second budget: methods that
are not offered, and repeated prompts, service requests and key exchanges.
Pure; the caller ends the connection. Source: RFC 4252 §4, which recommends a limit.
"""

NONE = "none"
PUBLICKEY = "publickey"
SERVICE = "service request"
KEY_EXCHANGE = "key exchange"


class Attempts:
    """The two budgets of one connection."""

    def __init__(self, max_failures: int, max_keys: int) -> None:
        """Set the budgets: at most `max_keys` failed keys, and fewer than `max_failures` other failures."""
        self._failures_left = max_failures
        self._keys_left = max_keys
        self._may_ask_none = True
        self._pending = ""

    @property
    def is_over(self) -> bool:
        """Return whether one of the budgets is used up."""
        return self._failures_left <= 0 or self._keys_left < 0

    def asked(self, what: str, *, proves: bool = False) -> None:
        """Record a request before it is handled; `proves` is True for a request with the signature of a key.

        A signature continues the offer of its key, and a method continues the service request.
        """
        goes_on = (self._pending == SERVICE and what != SERVICE) or (
            self._pending == PUBLICKEY and what == PUBLICKEY and proves
        )
        if self._pending and not goes_on:
            self._count(self._pending)
        self._pending = what

    def failed(self, what: str) -> None:
        """Record that a request failed."""
        self._pending = ""
        self._count(what)

    def led_on(self) -> None:
        """Record a partial success (RFC 4252 §5.1), which costs nothing."""
        self._pending = ""

    def _count(self, what: str) -> None:
        if what == PUBLICKEY:
            self._keys_left -= 1
        elif what == NONE and self._may_ask_none:
            self._may_ask_none = (
                False  # Free once: clients use it to learn which methods there are (RFC 4252 §5.2).
            )
        else:
            self._failures_left -= 1
