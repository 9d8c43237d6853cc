"""The composition root: it builds every part in order, and closes them in reverse order."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import structlog

from proxy import tuning
from proxy.access.authentication import Authenticator, key_event
from proxy.access.gateway import Gateway
from proxy.access.revocation import RevocationMonitor
from proxy.aio import TaskOwner
from proxy.events.inprocess import InProcessBus
from proxy.events.publisher import Bus
from proxy.http.handover import ALONE, ReplicaPages
from proxy.identity.auditor import Auditor
from proxy.identity.grants import SqlGrants
from proxy.identity.revoked_keys import Revocations
from proxy.identity.store import SqlDirectory
from proxy.onboarding import vault
from proxy.onboarding.keysource import KeySource
from proxy.onboarding.refresher import Refresher
from proxy.onboarding.service import OnboardingService
from proxy.onboarding.vault import Vault
from proxy.process.assemble.backend import open_backend
from proxy.process.assemble.catalog import open_catalog, open_repositories
from proxy.process.assemble.database import open_to_serve
from proxy.process.assemble.recordings import open_recordings
from proxy.process.assemble.reserved import own_of
from proxy.process.assemble.sessions import open_sessions
from proxy.process.assemble.shared import open_buckets
from proxy.process.assemble.trust import open_trust, uses_tcp
from proxy.process.assemble.web import Web, WebDependencies, open_web
from proxy.process.checks.everything import StandingChecks
from proxy.process.health import Health
from proxy.protection.bans import Bans
from proxy.protection.guard import Guard
from proxy.protection.home_bans import HomeBans
from proxy.protection.hook import Hook
from proxy.sessions.tracker import Tracker
from proxy.settings import Settings
from proxy.shared.buckets import Buckets
from proxy.shared.page_registry import PageRegistry
from proxy.ssh import hostkeys
from proxy.ssh.connection import ConnectionSections
from proxy.ssh.listener import Listener, ListenerSettings
from proxy.storage.database import Database
from proxy.trust.manager import TrustManager
from proxy.upstream.client import Links
from proxy.workspaces.control import Control
from proxy.workspaces.idle_reaper import IdleReaper
from proxy.workspaces.lifetimes import BlueprintLifetimes
from proxy.workspaces.provisioner import Workspaces
from proxy.workspaces.start_events import publish_stopped

_log = structlog.get_logger("app")

Ready = Callable[[str, int, hostkeys.HostKeys, Web | None], None]
"""Called once with host, port, host keys and the web half when connections are accepted."""


async def serve(settings: Settings, *, on_ready: Ready | None = None) -> None:
    """Run until SIGTERM or SIGINT, then let live sessions end for `shutdown_grace_s`.

    Raises: SettingsError, StoreError, TrustError when a part cannot start.
    """
    tuning.keep_buffers()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        listener, keys, health, web = await _build(settings, stack)
        _start_checks(settings, health, stack)
        health.add_gauges(web.gauges if web else {})
        host, port = listener.address
        health.set_ready(True)
        _log.info("listening", host=host, port=port, home=str(settings.state_dir))
        if on_ready is not None:
            on_ready(host, port, keys, web)
        tuning.settle_heap()
        await stop.wait()
        health.set_ready(False)
        _log.info("shutting down", drain_s=settings.health.drain_s, grace_s=settings.shutdown_grace_s)
        await asyncio.sleep(settings.health.drain_s)
        closing = TaskOwner("closing")
        if web is not None:
            closing.spawn(web.close(settings.shutdown_grace_s), name="web")
        await listener.close(settings.shutdown_grace_s)
        await closing.close(grace_s=1)


async def _build(
    settings: Settings, stack: AsyncExitStack
) -> tuple[Listener, hostkeys.HostKeys, Health, Web | None]:
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = hostkeys.load_or_create(settings.host_key_dir)
    directory, database, auditor = await _open_directory(settings, stack)
    catalog = await stack.enter_async_context(open_catalog(settings, follow=True))
    trust = await _open_trust(settings, stack)
    backend = await stack.enter_async_context(open_backend(settings, trust))
    repositories = await stack.enter_async_context(open_repositories(settings))
    bus = await _open_bus(settings, stack)
    workspaces = Workspaces(
        catalog,
        backend,
        settings.blueprint,
        bus.publish,
        repositories=repositories,
        hold_s=settings.workspace.stop_hold_s,
    )
    buckets = _open_buckets(settings, stack)
    accounts = Refresher(directory, SqlGrants(database), _open_vault(settings), settings.groups)
    door = await _open_front_door(settings, directory, buckets, accounts, stack)
    links = Links(settings.upstream, settings.proxy_id, trust)
    stack.push_async_callback(links.close)
    keysource = KeySource(
        directory,
        door,
        door.issuers,
        lambda change: bus.publish(key_event(change)),
        max_keys=settings.front_door.keys.max_keys,
    )
    stack.push_async_callback(keysource.close)
    authenticator = Authenticator(directory, keysource, bus, door.onboarding, accounts)
    tracker = await stack.enter_async_context(
        open_sessions(
            database, bus, buckets if settings.events.urls else None, settings.sessions, settings.proxy_id
        )
    )
    guard = _open_guard(settings, buckets, bus, stack)
    recordings = open_recordings(settings, bus)
    stack.push_async_callback(recordings.close)
    recordings.start()
    stopped = partial(publish_stopped, bus.publish)
    control = Control(workspaces, backend, links, settings.workspace, stopped)
    gateway = Gateway(workspaces, links, recordings, control, drain_s=settings.workspace.drain_s)
    revocations = await Revocations(settings.identity.revoked_keys).open()
    listener = Listener(
        _listener_settings(settings), gateway, authenticator, tracker, guard, keys, revocations
    )
    lifetimes = BlueprintLifetimes(workspaces, directory, settings.workspace)
    reaper = IdleReaper(backend, links, lifetimes, settings.workspace, stopped)
    reaper.start()
    stack.push_async_callback(reaper.close)
    accounts.start(door.providers, door.issuers, partial(_connected, listener))
    stack.push_async_callback(
        _start_revocation_monitor(settings, directory, bus, listener, revocations).close
    )
    web = await open_web(
        settings.web,
        WebDependencies(
            gateway,
            workspaces,
            backend,
            directory,
            catalog,
            guard,
            database,
            bus,
            door,
            revocations,
            tracker,
            settings.identity.recheck_s,
            settings.listen,
        ),
        stack,
    )
    await listener.open()
    gateway.reserve(own_of(settings, {listener.address[1], *door.ports, *({web.port} if web else ())}))
    health = _health(settings, listener, links, bus, door, tracker, guard)
    health.add_problem(
        "fairlead_directory_in_doubt",
        "1 while users or keys are lost, or the directory does not answer; see docs/operations.md.",
        lambda: auditor.problem,
    )
    stack.push_async_callback(health.close)
    await health.open()
    return listener, keys, health, web


def _listener_settings(settings: Settings) -> ListenerSettings:
    connection = ConnectionSections(
        settings.proxy_id,
        settings.login,
        settings.connection,
        settings.relay,
        settings.sessions,
        settings.identity.recheck_s,
    )
    return ListenerSettings(
        settings.listen,
        settings.ssh,
        settings.proxy_protocol,
        settings.protection.strangers_share,
        settings.identity.trusted_user_ca_keys,
        connection,
    )


def _health(
    settings: Settings,
    listener: Listener,
    links: Links,
    bus: Bus,
    door: OnboardingService,
    tracker: Tracker,
    guard: Guard,
) -> Health:
    """Return the health page of all parts. A new part with a queue or a bound adds its values here."""
    counters = bus.counters
    return Health(
        settings.health,
        gauges={
            (
                "fairlead_sessions",
                "SSH connections and browsers at web apps whose user is logged in.",
            ): lambda: len(tracker.live),
            ("fairlead_connections", "SSH connections that are open, logged in or not."): (
                lambda: len(listener.connections())
            ),
            ("fairlead_connections_unauthenticated", "SSH connections that are not logged in."): (
                lambda: guard.unauthenticated
            ),
            ("fairlead_bans", "Addresses that are banned now."): lambda: guard.banned,
            ("fairlead_links", "gRPC channels to workspaces."): lambda: len(links),
            ("fairlead_onboardings_pending", "People who are shown a code at the moment."): (
                lambda: len(door.onboarding)
            ),
        },
        counters={
            ("fairlead_events", "Events by what became of them; see docs/events.md."): {
                "published": lambda: counters.published,
                "dropped": lambda: counters.dropped,
                "failed": lambda: counters.failed,
            },
            ("fairlead_connections_refused", "Connections not heard, by why; see docs/protection.md."): {
                word: partial(guard.refused.__getitem__, word) for word in guard.refused
            },
            ("fairlead_session_records", "Ended records that were not kept; see docs/sessions.md."): {
                "dropped": lambda: tracker.dropped,
            },
        },
    )


def _start_checks(settings: Settings, health: Health, stack: AsyncExitStack) -> None:
    """Try everything that the settings name, beside the service."""
    checks = StandingChecks(settings)
    stack.push_async_callback(checks.close)
    checks.start()
    health.add_problem(
        "fairlead_checks_failed",
        "1 while something that the settings name does not work; `fairlead check` says what.",
        lambda: checks.problem,
    )


async def _open_directory(
    settings: Settings, stack: AsyncExitStack
) -> tuple[SqlDirectory, Database, Auditor]:
    identity = settings.identity
    database = await open_to_serve(
        settings.database_url,
        query_timeout_s=identity.query_timeout_s,
        failover_wait_s=identity.failover_wait_s,
        pinned=identity.installation,
        memory=settings.installation_file,
    )
    stack.push_async_callback(database.close)
    directory = await SqlDirectory.in_database(database, uids=identity.uids, groups=settings.groups)
    auditor = Auditor(
        directory,
        census_s=identity.census_s,
        recheck_s=identity.recheck_s,
        vanished_s=identity.vanished_s,
        max_vanished_share=identity.max_vanished_share,
    )
    await auditor.look()  # before the first login, which depends on the result
    auditor.start()
    stack.push_async_callback(auditor.close)
    return directory, database, auditor


async def _open_trust(settings: Settings, stack: AsyncExitStack) -> TrustManager | None:
    """Read or create the credentials for workspaces over TCP; None when workspaces have private sockets."""
    if not uses_tcp(settings):
        return None
    keeper = await stack.enter_async_context(open_trust(settings))
    await keeper.open()
    return keeper


def _start_revocation_monitor(
    settings: Settings, directory: SqlDirectory, bus: Bus, listener: Listener, revocations: Revocations
) -> RevocationMonitor:
    monitor = RevocationMonitor(
        directory, bus, listener.connections, settings.identity.recheck_s, revocations
    )
    monitor.start()
    return monitor


def _connected(listener: Listener) -> set[str]:
    """Return the names of the users who are connected to this process."""
    return {one.principal.user.name for one in listener.connections() if one.principal is not None}


def _open_vault(settings: Settings) -> Vault | None:
    """Read the key that encrypts refresh tokens; without one they are neither kept nor asked for."""
    if (file := settings.grant_key_file) is None:
        if settings.front_door.providers:
            _log.warning(
                "refresh tokens are not kept: users approve again when their groups are too old; "
                "give every replica the same groups.key_file",
                max_age_s=settings.groups.max_age_s,
            )
        return None
    return vault.load(file, create=settings.groups.key_file is None)


async def _open_front_door(
    settings: Settings,
    directory: SqlDirectory,
    buckets: Buckets,
    accounts: Refresher,
    stack: AsyncExitStack,
) -> OnboardingService:
    """Open the onboarding of new users; a browser may reach any of the replicas that reach each other."""
    chosen = settings.front_door_in_effect
    if settings.is_dev_provider_held_back:
        _log.warning("no new user can come in: no development provider while proxy_protocol.trusted is set")
    peers: ReplicaPages = ALONE
    if chosen.confirm.peer_url and chosen.has_page:
        replicas = PageRegistry(buckets, proxy_id=settings.proxy_id, url=chosen.confirm.peer_url)
        replicas.start()
        stack.push_async_callback(replicas.close)
        peers = replicas
    keep = accounts.keep if accounts.keeps_grants else None
    door = await OnboardingService.open(chosen, directory, peers=peers, keep=keep)
    stack.push_async_callback(door.close)
    stack.push_async_callback(accounts.close)
    return door


def _open_buckets(settings: Settings, stack: AsyncExitStack) -> Buckets:
    """Open the state that replicas share, without waiting for it."""
    buckets = open_buckets(settings)
    buckets.start()
    stack.push_async_callback(buckets.close)
    return buckets


def _open_guard(settings: Settings, buckets: Buckets, bus: Bus, stack: AsyncExitStack) -> Guard:
    """Open the guard; bans of other replicas and of the last run apply as soon as they are read."""
    rules = settings.protection.bans
    bans = Bans(buckets, max_sources=rules.max_sources, memory_s=rules.memory_s)
    stack.push_async_callback(bans.close)
    if settings.events.urls:
        timeout_s = settings.events.ack_timeout_s
        home = HomeBans(settings.shared_file, bans, bus, timeout_s=timeout_s, max_sources=rules.max_sources)
        home.start()
        stack.push_async_callback(home.close)
    hook = Hook(rules, bans)
    hook.start()
    stack.push_async_callback(hook.close)
    return Guard(settings.protection, bans, bus)


async def _open_bus(settings: Settings, stack: AsyncExitStack) -> Bus:
    """Open NATS if it is configured, else a bus inside the process. Neither is waited for."""
    events = settings.events
    bus: Bus
    if events.urls:
        from proxy.events.natsbus import NatsBus  # nats-py is slow to import, and most laptops have no NATS

        bus = NatsBus(events, proxy_id=settings.proxy_id)
    else:
        bus = InProcessBus(proxy_id=settings.proxy_id, subscription_queue_size=events.subscription_queue_size)
    bus.start()
    stack.push_async_callback(bus.close, events.close_timeout_s)
    return bus
