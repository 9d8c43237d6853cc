"""Checks of the services that the settings name: database, NATS, identity providers, recordings."""

from collections.abc import Iterator, Mapping
from functools import partial

from proxy.errors.stores import DatabaseMissing, SchemaOutdated
from proxy.identity.directory import Account
from proxy.onboarding.checkup import Checkup
from proxy.process.assemble.database import expected
from proxy.process.assemble.recordings import open_bucket
from proxy.process.checks import Check, Verdict, error, ok, warning
from proxy.process.checks.files import writable
from proxy.recording.store import StorageError
from proxy.recording.threads import Threads
from proxy.settings import Settings
from proxy.settings.onboarding import ProviderSettings
from proxy.storage.database import Database


def service_checks(settings: Settings, threads: Threads) -> Iterator[Check]:
    """Yield a check for each service that the settings name."""
    yield Check("database", partial(_database, settings))
    for url in settings.events.urls:
        yield Check(f"nats {url}", partial(_nats, settings, url))
    for provider in settings.front_door_in_effect.providers:
        yield Check(f"provider {provider.title}", partial(_provider, settings, provider))
    if settings.recording.store == "directory":
        look = partial(writable, settings.recording_dir, "recording.directory")
        yield Check("recordings", partial(threads.run, look))
    else:
        yield Check("recordings", partial(_bucket, settings))


async def _database(settings: Settings) -> Verdict:
    served = expected(settings.identity.installation, settings.installation_file)
    timeout_s = min(settings.identity.query_timeout_s, settings.checks.timeout_s)
    try:
        database = await Database.open(settings.database_url, query_timeout_s=timeout_s, served=served)
    except DatabaseMissing as exc:
        return error(str(exc)) if served else ok("there is none yet; a proxy that starts makes it")
    except SchemaOutdated as exc:
        return warning(str(exc))
    try:
        return ok(f"{database.where} answers; it belongs to installation {database.installation}")
    finally:
        await database.close()


async def _nats(settings: Settings, url: str) -> Verdict:
    from proxy.nats.probe import probe
    from proxy.nats.wire import LinkFailed  # nats-py is slow to import, and most laptops have no NATS

    try:
        answer = await probe(settings.events, url)
    except LinkFailed as exc:
        return error(f"events.urls: {url}: {exc}; events wait in the proxy, and bans are shared later")
    return ok(answer.says) if answer.has_jetstream else warning(answer.says)


async def _provider(settings: Settings, provider: ProviderSettings) -> Verdict:
    accounts: Mapping[str, Account] = {}
    checkup = Checkup(settings.front_door_in_effect, accounts, start=False)
    try:
        findings = [found async for found in checkup.look(provider)]
    finally:
        await checkup.close()
    wrong = "; ".join(f"{found.what}: {found.says}" for found in findings if found.ok is False)
    if wrong:
        return error(f"front_door.providers: {provider.title}: {wrong}")
    return ok("; ".join(found.says for found in findings if found.ok))


async def _bucket(settings: Settings) -> Verdict:
    s3 = settings.recording.s3
    store = open_bucket(settings.recording)
    try:
        await store.probe()
    except StorageError as exc:
        where = f" at {s3.endpoint}" if s3.endpoint else ""
        return error(f"recording.s3: bucket {s3.bucket}{where} cannot be written: {exc}")
    finally:
        await store.close()
    return ok(f"bucket {s3.bucket} can be written")
