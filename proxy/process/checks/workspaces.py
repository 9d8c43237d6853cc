"""Checks of everything that workspaces are made from and run on: blueprints, the cluster, trust, issuers."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy.blueprints.reading import BlueprintSet, read_set
from proxy.blueprints.sources import Snapshot, read_directory
from proxy.errors.blueprints import BlueprintSourceFailed
from proxy.errors.workspaces import ClusterForbidden, ClusterNotFound
from proxy.process.assemble.catalog import open_source
from proxy.process.assemble.trust import uses_tcp
from proxy.process.checks import Check, Verdict, error, ok, warning
from proxy.recording.threads import Threads
from proxy.settings import Settings
from proxy.trust.certmanager import MountedIdentity
from proxy.workspaces.local import namespaces

if TYPE_CHECKING:
    from proxy.workspaces.kubernetes.api import Api

_RETRY_S = 1.0
"""A check answers with the failure itself; its repetition is the retry."""
_PROBE_NAME = "fairlead-check"


def workspace_checks(settings: Settings, threads: Threads) -> Iterator[Check]:
    """Yield the checks of blueprints, and of the configured backend."""
    yield Check("blueprints", partial(_blueprints, settings, threads))
    if not uses_tcp(settings):
        if settings.workspace.namespaces in ("bwrap", "unshare"):
            yield Check("workspace namespaces", partial(_separation, settings))
        return
    yield Check(f"namespace {settings.kubernetes.namespace}", partial(_namespace, settings))
    yield Check("trust", partial(_trust, settings))
    if settings.trust.mode == "cert-manager":
        yield Check("proxy certificate", partial(threads.run, partial(_certificate, settings)))
        yield Check(f"issuer {settings.trust.issuer_name}", partial(_issuer, settings))


async def _blueprints(settings: Settings, threads: Threads) -> Verdict:
    wanted = settings.blueprint
    if wanted.source == "directory":
        directory = settings.blueprint_dir
        if not await threads.run(directory.is_dir):
            return error(f"blueprint.directory: {directory}: there is no such directory")
        snapshot: Snapshot = await threads.run(partial(read_directory, directory))
        where = str(directory)
    else:
        try:
            async with open_source(settings) as source:
                snapshot = await source.fetch()
        except BlueprintSourceFailed as exc:
            return error(f"blueprint.{wanted.source}: {exc}")
        where = snapshot.revision
    found = read_set(snapshot, wanted.metadata)
    missing = [f"{setting}: {name!r}" for setting, name in _named(settings) if name not in found.definitions]
    if missing:
        return error(f"{'; '.join(missing)}: there is no such blueprint in {where} ({_names(found)})")
    return ok(f"{_names(found)} from {where}")


def _named(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each blueprint that the settings name, behind its setting."""
    wanted = settings.blueprint
    yield "blueprint.default", wanted.default
    for number, rule in enumerate(wanted.rules):
        if rule.default is not None:
            yield f"blueprint.rules.{number}.default", rule.default
    for field in ("base", "default"):
        if name := getattr(wanted.repository, field):
            yield f"blueprint.repository.{field}", name
    for name in wanted.repository.templates:
        yield "blueprint.repository.templates", name


def _names(found: BlueprintSet) -> str:
    names = sorted(found.definitions)
    shown = ", ".join(names[:5]) or "none"
    return f"blueprints: {shown}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def _separation(settings: Settings) -> Verdict:
    choice = settings.workspace.namespaces
    found = await namespaces.choose(choice)
    if found.kind != choice:
        return error(f"workspace.namespaces: {choice} does not work here: {found.reason}")
    return ok(f"{choice} works")


async def _namespace(settings: Settings) -> Verdict:
    """Ask the server whether a ConfigMap could be made, which every start of a workspace does."""
    namespace = settings.kubernetes.namespace
    async with _cluster(settings) as api:
        try:
            await api.apply(_probe("ConfigMap", _PROBE_NAME, namespace), dry_run=True)
        except ClusterNotFound:
            return error(f"kubernetes.namespace: there is no namespace {namespace} in the cluster")
    return ok("the API server answers, and objects can be made there")


async def _trust(settings: Settings) -> Verdict:
    from proxy.workspaces.kubernetes.objects import SECRET

    name = settings.trust.secret_name
    namespace = settings.trust.secret_namespace or settings.kubernetes.namespace
    async with _cluster(settings) as api:
        if await api.find(SECRET, namespace, name) is not None:
            return ok(f"Secret {namespace}/{name} is there")
        try:
            await api.create(_probe("Secret", name, namespace), dry_run=True)
        except ClusterNotFound:
            setting = "trust.secret_namespace" if settings.trust.secret_namespace else "kubernetes.namespace"
            return error(f"{setting}: there is no namespace {namespace} in the cluster")
    return ok(f"Secret {namespace}/{name} does not exist yet; a proxy that starts makes it")


def _certificate(settings: Settings) -> Verdict:
    until = MountedIdentity.of(settings.trust).valid_until()
    return ok(f"{settings.trust.client_cert_file} is valid until {until:%Y-%m-%d %H:%M} UTC")


async def _issuer(settings: Settings) -> Verdict:
    from proxy.workspaces.kubernetes.objects import Kind, condition

    trust = settings.trust
    if trust.issuer_group != "cert-manager.io":
        return warning(f"trust.issuer_group: issuers of {trust.issuer_group} are not looked at")
    kind = Kind(trust.issuer_kind, f"{trust.issuer_kind.lower()}s", "cert-manager.io/v1")
    namespace = settings.kubernetes.namespace if trust.issuer_kind == "Issuer" else ""
    where = f"{kind.name} {namespace}/{trust.issuer_name}".replace(" /", " ")
    async with _cluster(settings) as api:
        try:
            found = await api.get(kind, namespace, trust.issuer_name)
        except ClusterNotFound:
            return error(f"trust.issuer_name: there is no {where} in the cluster, or it has no cert-manager")
        except ClusterForbidden:
            needs = f"the right `get` on {kind.plural}.cert-manager.io"
            return warning(f"{where} cannot be looked at: that needs {needs}")
    ready: dict[str, Any] = condition(found, "Ready")
    if ready.get("status") == "False":
        return error(f"{where} is not ready: {ready.get('message') or ready.get('reason')}")
    return ok(f"{where} is there")


@asynccontextmanager
async def _cluster(settings: Settings) -> "AsyncIterator[Api]":
    from proxy.workspaces.kubernetes.api import Api  # slow to import, and most laptops have no cluster

    api = Api(settings.kubernetes.model_copy(update={"retry_for_s": _RETRY_S}))
    try:
        yield api
    finally:
        await api.close()


def _probe(kind: str, name: str, namespace: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}
