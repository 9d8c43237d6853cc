"""Two replicas behind a balancer that alternates between them: no part of a sign-in is sticky."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.fakes.browser import Browser
from tests.web.logins import ACCEPT, Place, blueprint, serve
from tests.web.test_revocation import POLICY_VIOLATION, closed, connect
from tests.wire.harness import free_port
from tests.wire.replicas import two_proxies


@pytest.fixture(scope="module", params=[False, True], ids=["database only", "nats"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("replicas")
    public, app_port, ports = free_port(), free_port(), (free_port(), free_port())
    settings = {"FAIRLEAD_WEB__PUBLIC_PORT": str(public)}
    with two_proxies(directory, settings, nats=request.param, start=False) as pair:
        for fairlead, port in zip((pair.first, pair.second), ports, strict=True):
            fairlead.extra_env["FAIRLEAD_WEB__LISTEN"] = f"127.0.0.1:{port}"
        (pair.first.home / "blueprints" / "dev.yaml").write_text(blueprint(app_port))
        pair.first.start()
        pair.second.start()
        serve(pair.first, app_port)
        one = Place(pair.first, public, app_port)
        one.fairlead.extra_env["PORTS"] = ",".join(map(str, ports))
        yield one


@asynccontextmanager
async def balanced(here: Place) -> AsyncIterator[None]:
    """Accept where browsers come, and pass connections to the replicas in turn."""
    ports = itertools.cycle(map(int, here.fairlead.extra_env["PORTS"].split(",")))
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def close(*writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        back, there = await asyncio.open_connection("127.0.0.1", next(ports))
        # Python 3.11 logs a handler that ends cancelled as a failure of its callback.
        with suppress(asyncio.CancelledError):
            await asyncio.gather(pump(reader, there), pump(back, writer))
        await close(there, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", here.port)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_sign_in_meets_another_replica_at_every_step(here: Place) -> None:
    async with balanced(here):
        for _ in range(3):
            async with Browser(**ACCEPT, Connection="close") as browser:
                await browser.submit(await browser.get(here.link()["url"]), "sign-in")
                for path in ("/one", "/two", "/three"):
                    page = await browser.get(here.url(path=path))
                    assert page.url == here.url(path=path)
                    assert page.text.startswith("APP")


async def test_a_sign_out_at_one_replica_closes_websockets_at_the_other(here: Place) -> None:
    async with balanced(here), Browser(**ACCEPT) as browser:
        await browser.submit(await browser.get(here.link()["url"]), "sign-in")
        await browser.get(here.url())
        sockets = [await connect(browser, here) for _ in range(4)]
        await browser.submit(await browser.get(f"{here.login}/"), "here")
        for socket in sockets:
            code, reason = await closed(socket)
            assert code == POLICY_VIOLATION
            assert reason in ("you signed out", "you were signed out")
