"""The lifecycle of a part."""

import pytest

from proxy.process.parts import closing, running


class Part:
    """A part that notes its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    async def close(self) -> None:
        self.calls.append("close")


async def test_a_part_runs_while_inside() -> None:
    part = Part()
    async with running(part) as entered:
        assert entered is part
        assert part.calls == ["start"]
    assert part.calls == ["start", "close"]


@pytest.mark.parametrize("how", [running, closing])
async def test_a_part_is_closed_by_an_error_too(how: type) -> None:
    part = Part()
    with pytest.raises(ValueError, match="inside"):
        async with how(part):
            raise ValueError("inside")
    assert part.calls[-1] == "close"
