"""Secret strings: tokens, device codes, verifiers, client secrets."""

import hmac


class Secret:
    """A secret that no log line, error or repr shows; `reveal()` returns it where it is sent.

    Compares in constant time, and only with another Secret. Cannot be formatted, serialised or hashed.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a look-up in a dict of secrets would leak them by its timing

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself; no other method does."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __repr__(self) -> str:
        return "Secret(…)" if self._value else "Secret()"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialised")
