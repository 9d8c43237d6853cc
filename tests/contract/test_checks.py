"""`fairlead check` on real services: a database, NATS, a bucket and a provider that work, and that do not."""

import signal
from pathlib import Path

from proxy.process.checks import Finding, Status
from proxy.process.checks.everything import check_all
from proxy.settings import load
from tests.contract.directories import cluster
from tests.contract.natsserver import NatsServer, free_port
from tests.contract.postgres import Cluster
from tests.contract.s3server import BUCKET, s3_server, silent_server
from tests.fakes.provider import Say, Scripted

__all__ = ["cluster"]


async def found(tmp_path: Path, **environ: str) -> dict[str, Finding]:
    settings = load({"FAIRLEAD_HOME": str(tmp_path / "home"), **environ})
    return {finding.name: finding for finding in await check_all(settings)}


async def test_a_database_that_is_empty_works_and_one_that_is_away_is_named(
    cluster: Cluster, tmp_path: Path
) -> None:
    name = cluster.create()
    given = {"FAIRLEAD_IDENTITY__DATABASE_URL": cluster.url(name)}
    findings = await found(tmp_path, **given)
    says = "there is none yet; a proxy that starts makes it"
    assert findings["database"] == Finding("database", Status.OK, says)
    pinned = "01234567-89ab-cdef-0123-456789abcdef"
    findings = await found(tmp_path, FAIRLEAD_IDENTITY__INSTALLATION=pinned, **given)
    assert findings["database"].status is Status.ERROR
    cluster.halt()
    try:
        findings = await found(tmp_path, **given)
    finally:
        cluster.resume()
    assert findings["database"].status is Status.ERROR
    assert findings["database"].says.startswith(f"the database {cluster.directory}/{name} failed: ")


async def test_each_nats_server_is_tried(tmp_path: Path) -> None:
    server, plain = NatsServer(tmp_path / "one"), NatsServer(tmp_path / "two", jetstream=False)
    nobody = f"nats://127.0.0.1:{free_port()}"
    server.start()
    plain.start()
    try:
        findings = await found(tmp_path, FAIRLEAD_EVENTS__URLS=f"{server.url},{plain.url},{nobody}")
        says = "answers; stream fairlead does not exist yet, a proxy that starts makes it"
        assert findings[f"nats {server.url}"] == Finding(f"nats {server.url}", Status.OK, says)
        assert findings[f"nats {plain.url}"].status is Status.WARNING
        assert findings[f"nats {nobody}"].status is Status.ERROR
        assert findings[f"nats {nobody}"].says.startswith(f"events.urls: {nobody}: ")
        server.send_signal(signal.SIGSTOP)
        try:
            findings = await found(
                tmp_path, FAIRLEAD_EVENTS__URLS=server.url, FAIRLEAD_EVENTS__CONNECT_TIMEOUT_S="0.5"
            )
        finally:
            server.send_signal(signal.SIGCONT)
        assert findings[f"nats {server.url}"].says.startswith(f"events.urls: {server.url}: no answer")
    finally:
        server.kill()
        plain.kill()


async def test_a_bucket_must_be_there_and_take_an_object(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    given = {
        "FAIRLEAD_RECORDING__STORE": "s3",
        "FAIRLEAD_RECORDING__S3__ACCESS_KEY_ID": "id",
        "FAIRLEAD_RECORDING__S3__SECRET_ACCESS_KEY_FILE": str(secret),
        "FAIRLEAD_CHECKS__TIMEOUT_S": "5",
    }
    with s3_server() as endpoint:
        given["FAIRLEAD_RECORDING__S3__ENDPOINT"] = endpoint
        findings = await found(tmp_path, FAIRLEAD_RECORDING__S3__BUCKET=BUCKET, **given)
        says = f"bucket {BUCKET} can be written"
        assert findings["recordings"] == Finding("recordings", Status.OK, says)
        findings = await found(tmp_path, FAIRLEAD_RECORDING__S3__BUCKET="missing", **given)
        assert findings["recordings"].status is Status.ERROR
        where = f"recording.s3: bucket missing at {endpoint} cannot be written: "
        assert findings["recordings"].says.startswith(where)
    given["FAIRLEAD_CHECKS__TIMEOUT_S"] = "0.5"
    with silent_server() as endpoint:
        given["FAIRLEAD_RECORDING__S3__ENDPOINT"] = endpoint
        findings = await found(tmp_path, FAIRLEAD_RECORDING__S3__BUCKET=BUCKET, **given)
    assert findings["recordings"].says == "no answer within 0.5 s (checks.timeout_s)"


async def test_an_issuer_that_is_no_provider_is_an_error(tmp_path: Path) -> None:
    async with Scripted() as server:
        server.on("/.well-known/openid-configuration", Say({"issuer": "https://other.example"}))
        provider = f'[{{"kind": "oidc", "name": "corp", "issuer": "{server.url}", "client_id": "x"}}]'
        findings = await found(tmp_path, FAIRLEAD_FRONT_DOOR__PROVIDERS=provider)
    assert findings["provider corp"].status is Status.ERROR
    assert findings["provider corp"].says.startswith("front_door.providers: corp: discovery: ")
