"""Grants at rest: what opens them, and what does not."""

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.http.secret import Secret
from proxy.onboarding import vault
from proxy.onboarding.vault import Vault

TOKEN = "refresh-token-that-nobody-may-see"


def key_line() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def test_what_is_sealed_shows_nothing_and_opens_for_its_account_only(tmp_path: Path) -> None:
    kept = vault.load(tmp_path / "key", create=True)
    sealed = kept.seal(Secret(TOKEN), "https://idp.example", "s1")
    assert TOKEN.encode() not in sealed
    assert kept.open(sealed, "https://idp.example", "s1") == Secret(TOKEN)
    assert kept.open(sealed, "https://idp.example", "s2") is None
    assert kept.open(sealed, "https://other.example", "s1") is None
    assert kept.open(sealed[:-1], "https://idp.example", "s1") is None
    assert Vault([os.urandom(32)]).open(sealed, "https://idp.example", "s1") is None


def test_keys_are_rotated_by_a_new_first_line(tmp_path: Path) -> None:
    old, new = key_line(), key_line()
    file = tmp_path / "key"
    file.write_text(f"{old}\n")
    sealed = vault.load(file, create=False).seal(Secret(TOKEN), "i", "s")
    file.write_text(f"{new}\n{old}\n")
    both = vault.load(file, create=False)
    assert both.open(sealed, "i", "s") == Secret(TOKEN)
    file.write_text(f"{new}\n")
    only_new = vault.load(file, create=False)
    assert only_new.open(sealed, "i", "s") is None
    assert only_new.open(both.seal(Secret(TOKEN), "i", "s"), "i", "s") == Secret(TOKEN)


def test_a_made_key_is_private_and_the_same_for_all_who_make_it_at_once(tmp_path: Path) -> None:
    file = tmp_path / "home" / "key"
    with ThreadPoolExecutor(8) as pool:
        vaults = list(pool.map(lambda _: vault.load(file, create=True), range(8)))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["key"]
    sealed = vaults[0].seal(Secret(TOKEN), "i", "s")
    assert all(one.open(sealed, "i", "s") == Secret(TOKEN) for one in vaults)


def test_url_safe_base64_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(base64.urlsafe_b64encode(b"\xff" * 32).decode())
    assert vault.load(file, create=False)


@pytest.mark.parametrize("text", ["", "\n", "c2hvcnQ=", "!" * 44, "A" * 200])
def test_a_key_that_is_none_is_refused_by_name_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"groups\.key_file .*openssl rand -base64 32") as caught:
        vault.load(file, create=False)
    assert not text.strip() or text not in str(caught.value)


def test_a_key_file_that_was_named_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"groups\.key_file .*No such file"):
        vault.load(tmp_path / "key", create=False)
