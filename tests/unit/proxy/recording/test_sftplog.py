"""The sftp log over hand-made streams: complete operations, any cut, any garbage, bounded memory."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.recording import sftplog
from proxy.recording.lines import read_line
from proxy.recording.sftplog import SftpLog
from proxy.recording.sftpwire import HEAD_BYTES

ATTRS = struct.pack(">I", 0)


def text(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(data)) + data


def packet(kind: int, *parts: bytes | int) -> bytes:
    body = bytes([kind]) + b"".join(
        part if isinstance(part, bytes) else struct.pack(">I", part) for part in parts
    )
    return struct.pack(">I", len(body)) + body


def status(number: int, code: int = 0) -> bytes:
    return packet(101, number, code, text("words"), text("en"))


class Dialogue:
    """Feeds both directions and keeps what is logged."""

    def __init__(self, cut: int = 0) -> None:
        self.log = SftpLog()
        self.cut = cut
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.up(packet(1, 3))
        self.down(packet(2, 3, text("posix-rename@openssh.com"), text("1")))

    def up(self, data: bytes) -> None:
        self._feed(self.log.from_client, data)

    def down(self, data: bytes) -> None:
        self._feed(self.log.from_server, data)

    def end(self) -> list[tuple[str, dict[str, Any]]]:
        self._keep(list(self.log.ended(9)))
        return self.lines

    def _feed(self, take: Any, data: bytes) -> None:
        step = self.cut or len(data) or 1
        for start in range(0, len(data), step):
            self._keep(list(take(1.5, memoryview(data)[start : start + step])))

    def _keep(self, raw: list[bytes]) -> None:
        for one in raw:
            line = read_line(one)
            assert line
            self.lines.append((line.code, line.data))


def a_session(dialogue: Dialogue) -> None:
    dialogue.up(packet(3, 1, text("/tmp/ä"), 0x1A, ATTRS))
    dialogue.down(packet(102, 1, text(b"\0\1")))
    dialogue.up(packet(6, 2, text(b"\0\1"), bytes(8), text(bytes(70_000))))
    dialogue.up(packet(6, 3, text(b"\0\1"), bytes(8), text(b"x" * 30)))
    dialogue.down(status(2) + status(3))
    dialogue.up(packet(5, 4, text(b"\0\1"), bytes(8), 32_768))
    dialogue.down(packet(103, 4, text(bytes(500))))
    dialogue.up(packet(4, 5, text(b"\0\1")))
    dialogue.down(status(5))
    dialogue.up(packet(18, 6, text("a"), text("b")))
    dialogue.down(status(6, 3))
    dialogue.up(packet(200, 7, text("posix-rename@openssh.com"), text("c"), text("d")))
    dialogue.down(status(7))
    dialogue.up(packet(16, 8, text(".")))
    dialogue.down(packet(104, 8, 1, text("/home"), text(""), ATTRS))
    dialogue.up(packet(20, 9, text("target"), text("link")))
    dialogue.down(status(9))


A_SESSION = [
    ("open", {"path": "/tmp/ä", "flags": ["write", "create", "truncate"], "handle": 1, "status": "ok"}),
    ("close", {"path": "/tmp/ä", "read": 500, "written": 70_030, "handle": 1, "status": "ok"}),
    ("rename", {"from": "a", "to": "b", "status": "permission denied"}),
    ("rename", {"from": "c", "to": "d", "status": "ok"}),
    ("symlink", {"from": "link", "to": "target", "status": "ok"}),
]


@pytest.mark.parametrize("cut", [0, 1, 3, 7, 4_096])
def test_operations_are_logged_when_answered_however_they_are_cut(cut: int) -> None:
    dialogue = Dialogue(cut)
    a_session(dialogue)
    assert dialogue.end() == A_SESSION


@pytest.mark.parametrize(
    ("kind", "operation"), [(13, "remove"), (14, "mkdir"), (15, "rmdir"), (9, "setstat"), (11, "list")]
)
def test_operations_on_one_path(kind: int, operation: str) -> None:
    dialogue = Dialogue()
    dialogue.up(packet(kind, 1, text(b"\xff"), ATTRS))
    dialogue.down(status(1, 2))
    assert dialogue.end() == [(operation, {"path": "\\xff", "status": "no such file"})]


def test_answers_in_another_order_are_matched() -> None:
    dialogue = Dialogue()
    dialogue.up(packet(13, 1, text("a")) + packet(13, 2, text("b")))
    dialogue.down(status(2) + status(1))
    assert [about["path"] for _, about in dialogue.end()] == ["b", "a"]


def test_writes_that_failed_are_not_counted_and_open_files_are_told_at_the_end() -> None:
    dialogue = Dialogue()
    dialogue.up(packet(3, 1, text("f"), 2, ATTRS))
    dialogue.down(packet(102, 1, text("h")))
    dialogue.up(packet(6, 2, text("h"), bytes(8), text(bytes(10))))
    dialogue.down(status(2, 4))
    assert dialogue.end()[-1] == (
        "close",
        {"path": "f", "read": 0, "written": 0, "handle": 1, "status": "open at the end"},
    )


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"SSH-2.0-nonsense",
        packet(3, 1),
        packet(3, 1, struct.pack(">I", 2**31)),
        packet(200, 1),
    ],
)
def test_garbage_is_let_go_and_said_to_be(garbage: bytes) -> None:
    dialogue = Dialogue()
    dialogue.up(garbage)
    dialogue.up(packet(13, 1, text("a")))
    dialogue.down(status(1))
    assert [code for code, _ in dialogue.end()] == ["stopped"]


def test_more_requests_than_are_followed_are_let_go() -> None:
    dialogue = Dialogue()
    for number in range(sftplog.MAX_PENDING + 1):
        dialogue.up(packet(13, number, text("a")))
    assert [code for code, _ in dialogue.end()] == ["stopped"]


def test_a_long_packet_is_skipped_and_not_kept() -> None:
    dialogue = Dialogue(cut=1_000)
    a_session(dialogue)
    assert len(dialogue.log._up._head) <= HEAD_BYTES


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=30))
def test_nothing_that_passes_can_break_it(pieces: list[tuple[bool, bytes]]) -> None:
    log = SftpLog()
    for from_client, data in pieces:
        list((log.from_client if from_client else log.from_server)(0, data))
    list(log.ended(1))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 255), st.binary(max_size=40)), max_size=40))
def test_packets_of_any_kind_and_content_can_not_either(parts: list[tuple[bool, int, bytes]]) -> None:
    log = SftpLog()
    for from_client, kind, body in parts:
        data = packet(kind, body)
        for line in (log.from_client if from_client else log.from_server)(0, data):
            assert read_line(line)
