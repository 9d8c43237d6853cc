"""Lists of revoked keys on disk: read again when they change, and no key is good while one cannot be read."""

import asyncio
import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.identity import krl, revoked_keys
from proxy.identity.revoked_keys import Revocation, Revocations
from proxy.model import KeyProof

KEYS = [KeyProof(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes([number]) * 32) for number in range(3)]


def lines(*credentials: KeyProof) -> str:
    return "".join(f"ssh-ed25519 {base64.b64encode(one.key).decode()}\n" for one in credentials)


async def said(lists: Revocations) -> list[str]:
    current = await lists.current()
    return [current.of(credential).value for credential in KEYS]


async def test_each_change_of_a_file_counts_at_the_next_question(tmp_path: Path) -> None:
    file, other = tmp_path / "revoked", tmp_path / "other"
    file.write_text(lines(KEYS[0]))
    other.write_text(lines(KEYS[1]))
    lists = Revocations([file, other])
    await lists.open()
    assert await said(lists) == ["revoked", "revoked", "good"]
    file.write_text(lines(KEYS[2]))  # of the same size, and perhaps at the same time of change
    assert await said(lists) == ["good", "revoked", "revoked"]
    fresh = tmp_path / "fresh"
    fresh.write_text("")
    fresh.replace(file)
    assert await said(lists) == ["good", "revoked", "good"]


async def test_while_a_file_cannot_be_read_no_key_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "revoked", tmp_path / "other"
    file.touch()
    other.write_text(lines(KEYS[1]))
    lists = Revocations([file, other])
    await lists.open()
    file.write_text("nonsense\n")
    for _ in range(3):
        assert await said(lists) == ["unknown", "revoked", "unknown"]
    file.unlink()
    assert await said(lists) == ["unknown", "revoked", "unknown"]
    file.touch()
    assert await said(lists) == ["good", "revoked", "good"]
    told = capsys.readouterr()
    logged = told.out + told.err
    assert logged.count("no key is accepted") == 2  # once a reason, not once a question
    assert "line 1" in logged
    assert "No such file" in logged
    assert logged.count("can be read again") == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: None, "No such file"),
        (lambda file: file.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda file: file.write_bytes(b"SSHKRL\n\0"), "cut short"),
    ],
    ids=["absent", "directory", "fifo", "cut short"],
)
async def test_a_start_with_a_file_that_cannot_be_read_names_setting_file_and_reason(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(tmp_path / "revoked")
    with pytest.raises(SettingsError, match=rf"identity.revoked_keys: {tmp_path}/revoked: .*{reason}"):
        await Revocations([tmp_path / "revoked"]).open()


async def test_many_questions_at_once_read_a_file_twice_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "revoked"
    file.write_text(lines(KEYS[0]))
    lists = Revocations([file])
    await lists.open()
    readings: list[int] = []
    read = krl.parse

    def counted(data: bytes) -> krl.RevokedKeys:
        readings.append(len(data))
        return read(data)

    monkeypatch.setattr(revoked_keys.krl, "parse", counted)
    file.write_text(lines(*KEYS))
    answers = await asyncio.gather(*(said(lists) for _ in range(100)))
    assert answers == [["revoked"] * 3] * 100
    assert len(readings) <= 2


async def test_a_file_that_did_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "revoked"
    file.write_text(lines(KEYS[0]))
    monkeypatch.setattr(revoked_keys, "_SETTLED_S", -1.0)  # as if it had been written long ago
    lists = Revocations([file])
    await lists.open()
    monkeypatch.setattr(revoked_keys.krl, "parse", lambda _: pytest.fail("read again"))
    for _ in range(3):
        assert await said(lists) == ["revoked", "good", "good"]


async def test_without_lists_every_key_is_good() -> None:
    assert (await Revocations().current()).of(KEYS[0]) is Revocation.GOOD
