"""The data types of RFC 4251 §5, read from the front of a byte string. Pure."""

from collections.abc import Iterator


class WireInvalid(ValueError):
    """Malformed bytes; the text gives the reason."""


class WireReader:
    """A reader of one value after another; false when all are read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises: WireInvalid when there are fewer."""
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise WireInvalid("it is cut short")
        self._at += count
        return taken

    def byte(self) -> int:
        """Return a byte. Raises: WireInvalid."""
        return self.take(1)[0]

    def uint32(self) -> int:
        """Return a 32-bit unsigned number. Raises: WireInvalid."""
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        """Return a 64-bit unsigned number. Raises: WireInvalid."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """Return a string with its length before it. Raises: WireInvalid."""
        return self.take(self.uint32())

    def strings(self, size: int | None = None) -> Iterator[bytes]:
        """Yield the remaining strings. Raises: WireInvalid for one that is not of `size` bytes."""
        while self:
            item = self.string()
            if size is not None and len(item) != size:
                raise WireInvalid(f"a string of {len(item)} bytes stands where one of {size} belongs")
            yield item

    def mpint(self) -> int:
        """Return a number. Raises: WireInvalid for one with needless leading bytes."""
        raw = self.string()
        value = int.from_bytes(raw, "big", signed=True)
        if len(raw) != (value.bit_length() + 8) // 8 * (value != 0):
            raise WireInvalid("a number in it has needless leading bytes")
        return value

    def end(self) -> None:
        """Check that nothing is left. Raises: WireInvalid."""
        if self:
            raise WireInvalid("there is something after its end")
