"""Names that no user of an image may have."""

import pytest

from proxy.identity.reserved_names import may_be_account


@pytest.mark.parametrize(
    "name", ["root", "daemon", "nobody", "www-data", "postgres", "_apt", "systemd-network"]
)
def test_names_of_system_accounts_are_reserved(name: str) -> None:
    assert may_be_account(name).reason == f"the user name {name} is reserved: it is a system account's"


@pytest.mark.parametrize("name", ["alice", "rooty", "a_b", "roots", "dev", "ci-bot"])
def test_names_of_people_are_not_reserved(name: str) -> None:
    assert may_be_account(name)
