"""JupyterLab, unmodified and started over SSH, used in Chromium through the origin of its app."""

import asyncio
import hashlib
import json
import random
import shlex
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.chromium import DEADLINE_S, ChromiumWindow, open_chromium
from tests.web.logins import Place, place, run_app
from tests.wire.harness import needs
from tests.wire.peers import until

# The server and the browser start once; the tests follow one another in one window, as a user works.
pytestmark = [needs("chromium", "jupyter-lab"), pytest.mark.asyncio(loop_scope="module")]
MIB = 1024 * 1024
TOKEN = "kept-by-jupyter-itself"
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": "first",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }
        for source in (
            "import os\nmine = 6 * 7\nprint('cell says', mine, os.getpid())",
            "print('mine' in dir())",
        )
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("lab"), program="") as one:
        notebook = shlex.quote(json.dumps(NOTEBOOK))
        assert one.fairlead.ssh(f"mkdir -p work && cat > work/one.ipynb <<<{notebook}").returncode == 0
        program = shlex.join(
            [
                str(shutil.which("jupyter-lab")),
                "--no-browser",
                f"--port={one.app_port}",
                "--ServerApp.allow_remote_access=True",
                f"--IdentityProvider.token={TOKEN}",
                "--allow-root",
            ]
        )
        run_app(one.fairlead, f"cd work && {program}", one.app_port)
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def person(here: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChromiumWindow]:
    """A user who has signed in by an SSH key, with the notebook open and its kernel started."""
    async with open_chromium(tmp_path_factory.mktemp("chromium"), ["--window-size=1400,1000"]) as browser:
        window = await browser.person()
        await window.open((await asyncio.to_thread(here.link))["url"])
        await window.press("sign-in")
        await window.open(here.url(path=f"/lab/tree/one.ipynb?token={TOKEN}"))
        await window.shows("Python 3 (ipykernel) | Idle")
        # A question about news covers a corner, if it has come by now; it goes away by itself too.
        await window.run("document.querySelector('.jp-toast-button[title=No]')?.click()")
        yield window


def printed(cell: int) -> str:
    """Write the expression of the output of a code cell."""
    return f"(document.querySelectorAll('.jp-CodeCell .jp-Cell-outputArea')[{cell}].innerText)"


async def test_cells_run_and_a_restarted_kernel_has_forgotten(person: ChromiumWindow) -> None:
    await person.click("[data-command='notebook:run-cell-and-select-next']")
    first = await person.until(f"{printed(0)}.match(/cell says 42 \\d+/)?.[0]", "the first cell has run")
    await person.click("[data-command='notebook:run-cell-and-select-next']")
    await person.until(f"{printed(1)}.includes('True')", "the second cell has run in the same kernel")
    await person.click("[data-command='notebook:restart-run-all']")
    await person.click(".jp-Dialog .jp-mod-accept")
    again = await person.until(
        f"(said => said && said !== {first!r} && said)({printed(0)}.match(/cell says 42 \\d+/)?.[0])",
        "the cells have run in another process",
    )
    assert again != first


async def test_a_terminal_takes_and_shows_what_is_typed(here: Place, person: ChromiumWindow) -> None:
    await person.click("[data-command='launcher:create']")
    await person.click(".jp-LauncherCard[title='Start a new terminal session']")
    await person.until(
        "document.activeElement?.classList.contains('xterm-helper-textarea')", "a terminal has the focus"
    )
    await person.type("echo terminal says $((6 * 7)) | tee said.txt")
    async with asyncio.timeout(DEADLINE_S):  # the page draws the text, so what it was sent is read
        while not any("terminal says 42" in message for message in person.heard):
            await asyncio.sleep(0.05)
    said = await asyncio.to_thread(here.fairlead.ssh, "cat work/said.txt")
    assert said.stdout == b"terminal says 42\n"


async def test_64_mib_are_uploaded_in_chunks(here: Place, person: ChromiumWindow, tmp_path: Path) -> None:
    """The page sends PUT requests of 1 MiB each, in base64."""
    data = random.Random(1).randbytes(64 * MIB)
    (tmp_path / "large.bin").write_bytes(data)
    await person.run("performance.setResourceTimingBufferSize(1000), performance.clearResourceTimings()")
    await person.choose("[data-jp-item-name='uploader'] jp-button", tmp_path / "large.bin")
    await person.click(".jp-Dialog .jp-mod-accept")  # asks whether so large a file is meant
    chunks = "performance.getEntriesByType('resource').filter(one => one.name.includes('contents/large.bin'))"
    await person.until(f"{chunks}.length >= 64", "64 requests")
    digest = hashlib.sha256(data).hexdigest()

    def is_whole() -> bool:
        return digest in here.fairlead.ssh("sha256sum work/large.bin").stdout.decode()

    await asyncio.to_thread(until, is_whole, "the file is there as it was sent")
