"""The first blueprint of `fairlead run`: its apps answer in Chromium without another command."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from proxy.cli import quickstart
from tests.fakes.chromium import DEADLINE_S, ChromiumWindow, open_chromium
from tests.web.logins import Place, place
from tests.wire.harness import needs

# Server and browser start once.
pytestmark = [needs("chromium"), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("blueprints")
    quickstart._write_first_blueprint(directory)
    blueprints = {"dev": (directory / "dev.yaml").read_text()}
    with place(tmp_path_factory.mktemp("first"), program="", blueprints=blueprints) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def person(here: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChromiumWindow]:
    """A user who has signed in by an SSH key; nothing runs in the workspace, which is not started."""
    async with open_chromium(tmp_path_factory.mktemp("chromium"), ["--window-size=1200,800"]) as browser:
        window = await browser.person()
        await window.open((await asyncio.to_thread(here.link))["url"])
        await window.press("sign-in")
        yield window


async def opened(person: ChromiumWindow, url: str, text: str) -> None:
    """Open an app as often as a patient user does while it starts, until its page shows the text."""
    async with asyncio.timeout(2 * DEADLINE_S):
        while True:
            await person.open(url)
            if person.status == 200:
                break
            await asyncio.sleep(1)
    await person.shows(text)


async def test_files_start_the_workspace_and_show_the_home(here: Place, person: ChromiumWindow) -> None:
    await opened(person, here.url("files--dev--alice"), "Upload")


@needs("jupyter-lab")
async def test_jupyterlab_starts_by_its_first_request_and_runs_a_kernel(
    here: Place, person: ChromiumWindow
) -> None:
    await opened(person, here.url("lab--dev--alice", "/lab"), "Launcher")
    await person.run(
        """(async () => {
          const token = document.cookie.split('; ').find(one => one.startsWith('_xsrf=')).slice(6);
          const headers = {'X-XSRFToken': token};
          const answer = await fetch('/api/kernels', {method: 'POST', headers, body: '{}'});
          const {id} = await answer.json();
          window.kernel = new WebSocket(`ws://${location.host}/api/kernels/${id}/channels`);
          return answer.status;
        })()"""
    )
    await person.until("window.kernel.readyState === 1", "the WebSocket of the kernel is open")
