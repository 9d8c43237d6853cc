"""Screens that the terminal core computes, as runs of one look."""

import pytest

from proxy.recording.screen import MAX_COLUMNS, MAX_ROWS, Run, Screen, Terminal


def shown(*pieces: str, columns: int = 12, rows: int = 3) -> Screen:
    with Terminal(columns, rows) as terminal:
        for piece in pieces:
            terminal.feed(piece)
        return terminal.screen()


def test_a_row_is_split_where_the_look_changes() -> None:
    assert shown("a\x1b[1;31mb\x1b[0mc").rows[0] == (
        Run("", "a", 1),
        Run("1;38;5;1", "b", 1),
        Run("", "c", 1),
    )


def test_wide_characters_are_runs_of_their_own_with_two_cells_each() -> None:
    assert shown("ab漢字c").rows[0] == (Run("", "ab", 2), Run("", "漢字", 4), Run("", "c", 1))


def test_a_combining_mark_stays_with_its_character() -> None:
    assert shown("e\u0301x").rows[0] == (Run("", "e\u0301x", 2),)


def test_coloured_blanks_are_kept_in_a_row_without_characters() -> None:
    screen = shown("\x1b[44m\x1b[K\x1b[0m\r\n\x1b[48;2;1;2;3m\x1b[5C\x1b[K")
    assert screen.rows[0] == (Run("48;5;4", " " * 12, 12),)
    assert screen.rows[1] == (Run("", " " * 5, 5), Run("48;2;1;2;3", " " * 7, 7))
    assert screen.rows[2] == ()


def test_a_background_whose_sequence_comes_in_two_pieces_is_kept() -> None:
    assert shown("\x1b[4", "4m\x1b[K").rows[0] == (Run("48;5;4", " " * 12, 12),)


def test_the_alternate_screen_gives_way_to_what_was_there_before() -> None:
    assert shown("before\x1b[?1049h\x1b[2Jinside").text()[0].strip() == "inside"
    assert shown("before\x1b[?1049h\x1b[2Jinside\x1b[?1049l").text() == ["before", "", ""]


def test_the_cursor_is_there_unless_it_is_hidden() -> None:
    assert shown("ab").cursor == (2, 0)
    assert shown("ab\x1b[?25l").cursor is None


def test_a_resize_changes_the_number_of_rows() -> None:
    with Terminal(12, 3) as terminal:
        terminal.feed("one\r\ntwo\r\nthree")
        terminal.resize(20, 2)
        assert (terminal.screen().columns, terminal.screen().text()) == (20, ["two", "three"])


@pytest.mark.parametrize("size", [(0, 0), (-5, 4), (10**9, 10**9)])
def test_a_size_out_of_bounds_is_brought_within_them(size: tuple[int, int]) -> None:
    with Terminal(*size) as terminal:
        terminal.feed("x")
        screen = terminal.screen()
    assert 1 <= screen.columns <= MAX_COLUMNS
    assert 1 <= len(screen.rows) <= MAX_ROWS


def test_half_a_surrogate_pair_is_shown_as_a_question_mark() -> None:
    assert shown("\ud83d!").text()[0] == "?!"
