"""Settings that only a start can judge: each sentence names the setting, the file, and no secret."""

from pathlib import Path

import pytest

from proxy.errors import FairleadError, SettingsError
from proxy.errors.stores import StoreError
from proxy.http.client import HttpClient
from proxy.onboarding.service import OnboardingService, read_secret
from proxy.recording.objects import ObjectStore
from proxy.settings.onboarding import FrontDoorSettings, HttpSettings
from proxy.settings.recording import S3Settings
from proxy.ssh import hostkeys
from proxy.storage.database import Database
from tests.fakes.provider import Registered


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url hunter2", "is not a URL such as postgresql://user:password@host/database"),
        (
            "mysql://u:hunter2@db/x",
            "its driver needs MySQLdb, which is not installed; "
            "PostgreSQL is postgresql://… and needs fairlead[postgres]",
        ),
        (
            "sqlite:///hunter2",
            "names a driver that is not asynchronous; use postgresql://… or sqlite+aiosqlite:///…",
        ),
    ],
)
def test_a_database_url_that_cannot_be_used(url: str, said: str) -> None:
    with pytest.raises(StoreError) as caught:
        Database(url, query_timeout_s=1)
    assert str(caught.value) == f"identity.database_url: {said}"


async def test_a_database_that_is_away_is_named_by_host_and_name_without_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        await Database.open("postgresql://u:hunter2@127.0.0.1:1/people", query_timeout_s=30)
    assert str(caught.value).startswith("the database 127.0.0.1:1/people failed: ")
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content, said in (
        (None, "No such file or directory"),
        (b"", "is empty or"),
        (b"\xff", "is not UTF-8 text"),
    ):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SettingsError) as caught:
            read_secret(file, "front_door.providers (hub): client_secret_file")
        assert str(caught.value).startswith(f"front_door.providers (hub): client_secret_file: {file}: {said}")


async def test_a_provider_whose_secret_is_missing_is_named(tmp_path: Path) -> None:
    provider = {"kind": "github", "name": "hub", "client_id": "x", "client_secret_file": tmp_path / "none"}
    with pytest.raises(
        SettingsError, match=r"^front_door\.providers \(hub\): client_secret_file: .*/none: No such"
    ):
        await OnboardingService.open(
            FrontDoorSettings.model_validate({"providers": [provider]}), Registered()
        )


def test_authorities_of_providers_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    for content, said in ((None, "No such file or directory"), ("text", "holds no certificate in PEM")):
        if content is not None:
            file.write_text(content)
        with pytest.raises(FairleadError) as caught:
            HttpClient(HttpSettings(ca_file=file))
        assert str(caught.value) == f"front_door.http.ca_file: {file}: {said}"


def test_host_keys_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ssh_host_rsa_key").write_text("no key")
    with pytest.raises(SettingsError, match=rf"^ssh\.host_key_dir: host keys in {tmp_path}: "):
        hostkeys.read(tmp_path)


def test_a_key_of_a_bucket_that_is_missing(tmp_path: Path) -> None:
    settings = S3Settings(bucket="b", access_key_id="x", secret_access_key_file=tmp_path / "none")
    with pytest.raises(SettingsError) as caught:
        ObjectStore(settings, timeout_s=1)
    assert str(caught.value) == f"recording.s3: {tmp_path}/none: No such file or directory"
