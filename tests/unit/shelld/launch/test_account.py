"""Accounts and shells."""

import os
import pwd

import pytest

from shelld.errors import StartCode, StartError
from shelld.launch.account import Account, Accounts, choose_shell
from shelld.settings import AccountSettings, Settings


def accounts(**wanted: object) -> Accounts:
    return Accounts(Settings(workspace="w", listen="", **wanted))  # type: ignore[arg-type]


def test_own_account_is_the_running_one() -> None:
    own = accounts(account=AccountSettings(home="/somewhere")).own
    assert own.uid == os.geteuid()
    assert own.home == "/somewhere"
    assert own.ids is None


def test_account_without_an_entry_in_passwd() -> None:
    own = accounts(account=AccountSettings(name="dev", uid=54321, gid=54321, home="/home/dev")).own
    assert (own.name, own.uid, own.gid, own.groups, own.shell) == ("dev", 54321, 54321, (54321,), "/bin/sh")


def test_only_named_accounts_are_found() -> None:
    other = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != os.geteuid())
    for name, code in ((other, StartCode.ACCOUNT_DENIED), ("nobody-knows", StartCode.ACCOUNT_DENIED)):
        with pytest.raises(StartError) as caught:
            accounts().find(name)
        assert caught.value.code == code
    with pytest.raises(StartError) as caught:
        accounts(accounts=("nobody-knows",)).find("nobody-knows")
    assert caught.value.code == StartCode.NO_SUCH_ACCOUNT


def test_shells() -> None:
    account = Account("a", 1, 1, (1,), "/", "/no/such/shell")
    assert choose_shell(account) == "/bin/sh"
    assert choose_shell(Account("a", 1, 1, (1,), "/", "/bin/cat")) == "/bin/cat"
