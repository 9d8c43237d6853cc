"""Making, sharing, rotating and using trust."""

import asyncio
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from pydantic import ValidationError

from proxy.errors.upstream import TrustError
from proxy.settings.trust import TrustSettings
from proxy.trust.authority import server_name
from proxy.trust.certmanager import MountedIdentity, certificate_manifest
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore, StoredTrust

DAY = timedelta(days=1)
NAME = server_name("ws1", "homes")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2027, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Callable[[], TrustManager]:
    """Make another proxy's keeper of one store."""
    return lambda: TrustManager(
        FileTrustStore(tmp_path / "deep" / "trust.json"), TrustSettings(), clock=clock
    )


async def test_proxies_that_start_together_agree(make: Callable[[], TrustManager]) -> None:
    keepers = [make() for _ in range(12)]
    await asyncio.gather(*(keeper.refresh() for keeper in keepers))
    assert len({keeper.material().roots for keeper in keepers}) == 1
    assert len({keeper.token("ws1", "alice", "") for keeper in keepers}) == 1
    assert len({keeper.material().key for keeper in keepers}) == 12, "a key never leaves its proxy"


async def test_what_is_kept_is_for_its_owner_alone(make: Callable[[], TrustManager], tmp_path: Path) -> None:
    await make().refresh()
    file = tmp_path / "deep" / "trust.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_material_is_one_object_until_something_is_newer(
    make: Callable[[], TrustManager], clock: Clock
) -> None:
    keeper = make()
    await keeper.refresh()
    first = keeper.material()
    await keeper.refresh()
    assert keeper.material() is first
    clock.now += timedelta(hours=17)  # of 24, and more than two thirds
    assert keeper.material() is not first


async def test_a_rotation_as_two_proxies_see_it(make: Callable[[], TrustManager], clock: Clock) -> None:
    one, other = make(), make()
    await one.refresh()
    await other.refresh()
    files = one.workspace_files("ws1", NAME, {})
    assert other.workspace_files("ws1", NAME, files) == files, "nothing changes that need not"

    await one.rotate()
    with pytest.raises(TrustError, match="under way"):
        await one.rotate()
    announced = one.workspace_files("ws1", NAME, files)
    assert announced["tls.crt"] == files["tls.crt"]
    assert len(x509.load_pem_x509_certificates(announced["client-ca.crt"])) == 2
    assert len(announced["token.key"].splitlines()) == 2
    token = one.token("ws1", "alice", "")

    await other.refresh()
    clock.now += DAY  # and nobody reads again: the moment was written down
    assert one.token("ws1", "alice", "") == other.token("ws1", "alice", "") != token
    taken_over = other.workspace_files("ws1", NAME, announced)
    assert taken_over["tls.crt"] != announced["tls.crt"]
    assert taken_over["token.key"] == announced["token.key"]

    clock.now += DAY
    await asyncio.gather(one.refresh(), other.refresh())
    alone = one.workspace_files("ws1", NAME, taken_over)
    assert alone["tls.crt"] == taken_over["tls.crt"]
    assert len(x509.load_pem_x509_certificates(alone["client-ca.crt"])) == 1
    assert len(alone["token.key"].splitlines()) == 1
    assert alone == other.workspace_files("ws1", NAME, taken_over)


async def test_a_workspace_gets_nothing_of_the_authority(make: Callable[[], TrustManager]) -> None:
    keeper = make()
    await keeper.refresh()
    files = keeper.workspace_files("ws1", NAME, {})
    assert set(files) == {"tls.crt", "tls.key", "client-ca.crt", "token.key"}
    generation = keeper.generations.all[0]
    assert generation.authority is not None
    assert generation.authority.dump().key not in files.values()
    assert generation.master not in files["token.key"]
    others = keeper.workspace_files("ws2", server_name("ws2", "homes"), {})
    assert files["token.key"] != others["token.key"]


async def test_certificates_of_workspaces_are_renewed_in_time(
    make: Callable[[], TrustManager], clock: Clock
) -> None:
    keeper = make()
    await keeper.refresh()
    files = keeper.workspace_files("ws1", NAME, {})
    clock.now += timedelta(days=59)
    assert keeper.workspace_files("ws1", NAME, files) == files
    clock.now += timedelta(days=2)
    assert keeper.workspace_files("ws1", NAME, files) != files


async def test_a_year_passes(make: Callable[[], TrustManager], clock: Clock) -> None:
    keeper = make()
    await keeper.refresh()
    seen = set()
    for _ in range(800):
        clock.now += DAY
        await keeper.refresh()
        seen.add(keeper.generations.issuing(clock.now).number)
        certificate = x509.load_pem_x509_certificate(keeper.material().certificate)
        assert certificate.not_valid_before_utc <= clock.now < certificate.not_valid_after_utc
    assert seen == {1, 2, 3}


class Unwilling:
    """A store that is always a step ahead."""

    def __init__(self, inner: FileTrustStore) -> None:
        self._inner = inner

    async def load(self) -> StoredTrust | None:
        return await self._inner.load()

    async def create(self, data: bytes) -> bool:
        return await self._inner.create(data)

    async def replace(self, data: bytes, version: str) -> bool:
        return False


async def test_giving_up_is_told(tmp_path: Path, clock: Clock) -> None:
    keeper = TrustManager(Unwilling(FileTrustStore(tmp_path / "trust.json")), TrustSettings(), clock=clock)
    await keeper.refresh()
    with pytest.raises(TrustError, match="another writer"):
        await keeper.rotate()


async def test_damage_is_no_reason_to_start_anew(tmp_path: Path, clock: Clock) -> None:
    """A new authority would lock every running workspace out."""
    file = tmp_path / "trust.json"
    file.write_text("{")
    keeper = TrustManager(FileTrustStore(file), TrustSettings(), clock=clock)
    with pytest.raises(TrustError, match="cannot be read"):
        await keeper.open()
    assert file.read_text() == "{"
    with pytest.raises(TrustError, match="not read yet"):
        keeper.token("ws1", "alice", "")


async def test_a_store_that_does_not_answer_has_a_deadline(clock: Clock) -> None:
    class Silent(Unwilling):
        def __init__(self) -> None: ...

        async def load(self) -> StoredTrust | None:
            await asyncio.Event().wait()
            return None

    keeper = TrustManager(Silent(), TrustSettings(store_timeout_s=0.05), clock=clock)
    with pytest.raises(TrustError, match="could not be had"):
        await keeper.refresh()


async def test_cert_manager_signs_certificates_and_we_sign_tokens(tmp_path: Path, clock: Clock) -> None:
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text(f"{name} 1")
    mounted = MountedIdentity(tmp_path / "cert", tmp_path / "key", tmp_path / "ca")
    keeper = TrustManager(
        FileTrustStore(tmp_path / "trust.json"), TrustSettings(), identity=mounted, clock=clock
    )
    await keeper.refresh()
    first = keeper.material()
    assert (first.roots, first.certificate, first.key) == (b"ca 1", b"cert 1", b"key 1")
    assert keeper.material() is first
    (tmp_path / "cert").write_text("cert 22")
    assert keeper.material().certificate == b"cert 22"
    (tmp_path / "cert").unlink()
    assert keeper.material().certificate == b"cert 22", "what cannot be read takes nothing away"
    files = keeper.workspace_files("ws1", NAME, {"tls.crt": b"old"})
    assert set(files) == {"token.key", "client-ca.crt"}
    assert files["client-ca.crt"] == b"ca 1"
    before = keeper.rotation_state
    (tmp_path / "ca").write_text("ca 1, ca 2")
    (tmp_path / "cert").write_text("cert 3")
    assert keeper.rotation_state != before, "workspaces must hear of another bundle"
    (tmp_path / "cert").unlink()
    missing = MountedIdentity(tmp_path / "cert", tmp_path / "key", tmp_path / "ca")
    with pytest.raises(TrustError):
        missing.material()


def test_what_cert_manager_is_asked_for() -> None:
    settings = TrustSettings(
        mode="cert-manager",
        issuer_name="workspaces",
        client_cert_file=Path("/c"),
        client_key_file=Path("/k"),
        client_ca_file=Path("/a"),
    )
    manifest = certificate_manifest("ws1-tls", "homes", NAME, {"a": "b"}, settings)
    assert manifest["spec"]["dnsNames"] == [NAME]
    assert "client auth" not in manifest["spec"]["usages"]
    assert manifest["spec"]["issuerRef"]["name"] == "workspaces"


@pytest.mark.parametrize(
    "values",
    [
        {"announce_s": 30},
        {"rotate_after_s": 86_400},
        {"authority_lifetime_s": 86_400 * 366},
        {"token_lifetime_s": 601},
        {"mode": "cert-manager"},
    ],
)
def test_settings_that_would_lock_somebody_out(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrustSettings.model_validate(values)
