"""Vite, unmodified and started over SSH, in Chromium at the origin of its app: an edit reaches the screen."""

import asyncio
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.certificates import Authority
from tests.fakes.chromium import DEADLINE_S, open_chromium
from tests.web.logins import Place, place, run_app
from tests.wire.harness import needs

pytestmark = needs("chromium", "node")
FILES = {
    "index.html": '<!doctype html><h1 id="title"></h1><script type="module" src="/main.js"></script>',
    "main.js": (
        "import { title } from './title.js'\n"
        "window.started = (window.started ?? 0) + 1\n"
        "const show = text => { document.getElementById('title').innerText = text }\n"
        "show(title)\n"
        "import.meta.hot.accept('./title.js', changed => show(changed.title))\n"
    ),
    "title.js": "export const title = 'before the edit'\n",
}


def find_vite() -> Path:
    """Return the program of the npm package; NODE_PATH names where it is, as for every program of node."""
    script = "console.log(require.resolve('vite/package.json'))"
    found = subprocess.run(["node", "-e", script], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("optional: NODE_PATH with the npm package vite")
    return Path(found.stdout.strip()).parent / "bin" / "vite.js"


@pytest.fixture(params=["localhost", "apps.example.test"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A project of its own, on this machine and at a domain over https, which Vite has to be told."""
    vite, files, env = find_vite(), dict(FILES), {}
    if request.param != "localhost":
        files["vite.config.js"] = f"export default {{ server: {{ allowedHosts: ['.{request.param}'] }} }}\n"
        cert, key = Authority().issue(f"*.{request.param}").write(tmp_path, "apps")
        env = {
            "FAIRLEAD_WEB__APPS_DOMAIN": request.param,
            "FAIRLEAD_WEB__TLS__CERT": str(cert),
            "FAIRLEAD_WEB__TLS__KEY": str(key),
        }
    with place(tmp_path / "vite", program="", **env) as one:
        for name, text in files.items():
            done = one.fairlead.ssh(f"mkdir -p site && cat > site/{name}", data=text.encode())
            assert done.returncode == 0, done.stderr
        program = [str(shutil.which("node")), str(vite), "--port", str(one.app_port)]
        run_app(one.fairlead, f"cd site && exec {shlex.join(program)}", one.app_port)
        yield one


async def test_an_edit_reaches_the_screen_without_a_reload(here: Place, tmp_path: Path) -> None:
    flags = ["--host-resolver-rules=MAP *.example.test 127.0.0.1", "--ignore-certificate-errors"]
    async with open_chromium(tmp_path / "chromium", flags) as browser:
        person = await browser.person()
        await person.open((await asyncio.to_thread(here.link))["url"])
        await person.press("sign-in")
        await person.open(here.url())
        await person.shows("before the edit")
        await person.run("window.mark = 'not reloaded'; 0")
        async with asyncio.timeout(DEADLINE_S):  # the socket that tells the page what was edited
            while not any("connected" in message for message in person.heard):
                await asyncio.sleep(0.05)
        edited = b"export const title = 'after the edit'\n"
        done = await asyncio.to_thread(here.fairlead.ssh, "cat > site/title.js", data=edited)
        assert done.returncode == 0
        await person.shows("after the edit")
        assert await person.run("[window.mark, window.started]") == ["not reloaded", 1]
