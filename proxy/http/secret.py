"""A string that must not be seen: tokens, device codes, verifiers, client secrets."""

import hmac


class Secret:
    """Hold a secret so that no log line, error or repr shows it; `reveal()` where it is sent.

    Compares in constant time, and only with another Secret. Neither formatted, nor serialised, nor hashed.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a dict of secrets would be looked up in telling time

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the secret itself; its only way out."""
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
