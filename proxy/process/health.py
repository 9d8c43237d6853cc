"""The health page: readiness, liveness and metrics.

    GET /livez     200 while the process can answer at all
    GET /readyz    200 while connections are accepted; 503 while starting and from SIGTERM on;
                   one line for each problem besides
    GET /metrics   Prometheus text

Readiness does not depend on the database: a proxy without it still shows each user an error text, which a
closed port would not.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from proxy import __version__
from proxy.addresses import split_address
from proxy.errors import SettingsError
from proxy.metrics import REGISTRY
from proxy.settings.health import HealthSettings

Read = Callable[[], float]


class Health:
    """The health server; one for each process. Each part adds its own values, which are read at a scrape."""

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._gauges: list[tuple[str, str, Read]] = []
        self._counters: list[tuple[str, str, Mapping[str, Read]]] = []
        self._problems: list[tuple[str, str, Callable[[], str]]] = []
        self._is_ready = False
        self._began = time.monotonic()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer while inside, if configured. Raises: SettingsError naming the address."""
        if not self._settings.listen:
            yield
            return
        runner = self._server()
        await runner.setup()
        try:
            await self._listen(runner)
            REGISTRY.register(self)
            try:
                yield
            finally:
                REGISTRY.unregister(self)
        finally:
            await runner.cleanup()

    def _server(self) -> web.AppRunner:
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", _alive),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        return web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=15)

    async def _listen(self, runner: web.AppRunner) -> None:
        host, port = split_address(self._settings.listen)
        try:
            await web.TCPSite(runner, host or None, port, backlog=64).start()
        except OSError as exc:
            where = self._settings.listen
            raise SettingsError(f"health.listen: cannot listen on {where}: {exc.strerror or exc}") from exc

    def add_gauge(self, name: str, text: str, read: Read) -> None:
        """Show a value that may rise and fall; `text` is its help."""
        self._gauges.append((name, text, read))

    def add_counter(self, name: str, text: str, outcomes: Mapping[str, Read]) -> None:
        """Show values that only grow, one for each value of the label `outcome`."""
        self._counters.append((name, text, outcomes))

    def add_problem(self, name: str, text: str, read: Callable[[], str]) -> None:
        """Show a sentence in /readyz while `read` returns one, and 1 in the gauge `name`.

        The status stays 200: known users can still log in, and see errors for what cannot be done.
        """
        self._problems.append((name, text, read))

    def set_ready(self, ready: bool) -> None:
        """Set whether new connections may be sent here."""
        self._is_ready = ready

    def collect(self) -> Iterable[Metric]:
        """Yield the values that are read only at a scrape; the registry calls this."""
        yield GaugeMetricFamily("fairlead_uptime_seconds", "Since start.", time.monotonic() - self._began)
        info = GaugeMetricFamily("fairlead_build_info", "Always 1.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, read())
        for name, text, problem in self._problems:
            yield GaugeMetricFamily(name, text, 1 if problem() else 0)
        for name, text, outcomes in self._counters:
            family = CounterMetricFamily(name, text, labels=("outcome",))
            for outcome, read in outcomes.items():
                family.add_metric((outcome,), read())
            yield family

    async def _ready(self, _: web.Request) -> web.Response:
        if not self._is_ready:
            return web.Response(text="not now\n", status=503)
        problems = filter(None, (read() for _, _, read in self._problems))
        return web.Response(text="".join(f"{line}\n" for line in ("ok", *problems)))

    async def _metrics(self, _: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        return web.Response(body=generate_latest(REGISTRY), headers=headers)


async def _alive(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")
