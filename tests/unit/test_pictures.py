"""Pictures of terminals: the text of the last screen, and nothing that a reader's browser would load."""

import re
from xml.etree import ElementTree

from tests.pictures import draw


def test_a_picture_shows_the_last_screen_and_loads_nothing() -> None:
    picture = draw(
        b"gone\x1b[2J\x1b[H\x1b[31mred\x1b[0m \xe2\x9c\x93 <end>\r\n", "a title", columns=20, rows=4
    )
    texts = ["".join(one.itertext()).replace("\xa0", " ") for one in ElementTree.fromstring(picture).iter()]
    assert any("red" in text and "✓" in text and "<end>" in text for text in texts)
    assert "a title" in texts
    assert not any("gone" in text for text in texts)
    addresses = set(re.findall(r"(?:https?:)?//[^\s\"')]+", picture))
    assert addresses == {"http://www.w3.org/2000/svg"}, addresses


def test_empty_rows_at_the_end_are_left_out() -> None:
    short, tall = (draw(b"one\r\n", "", columns=20, rows=rows) for rows in (4, 40))
    assert short == tall
