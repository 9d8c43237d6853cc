"""The app `files` in Chromium and by curl: up, down, in part, with names of any bytes, with scripts off."""

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.chromium import ChromiumWindow, open_chromium
from tests.web.logins import Place, place
from tests.wire.harness import needs
from tests.wire.peers import MIB, noise, until

# Server and browser start once; each test has a folder of its own.
pytestmark = [needs("chromium", "curl"), pytest.mark.asyncio(loop_scope="module")]
LABEL = "files--dev--alice"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    blueprint = "name: dev\napps:\n  files: {built_in: files}\n"
    with place(tmp_path_factory.mktemp("files"), program="", blueprints={"dev": blueprint}) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def person(here: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChromiumWindow]:
    """A user who has signed in by an SSH key and opened the app; pages run no script."""
    async with open_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        window = await browser.person()
        await window.open((await asyncio.to_thread(here.link))["url"])
        await window.press("sign-in")
        await window.open(here.url(LABEL))
        await window.shows("Upload")
        await window.call("Emulation.setScriptExecutionDisabled", value=True)
        yield window


async def in_workspace(here: Place, command: str, data: bytes = b"") -> bytes:
    """Run a command in the workspace; return its output."""
    done = await asyncio.to_thread(here.fairlead.ssh, command, data=data)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def curl(here: Place, person: ChromiumWindow, path: str, *options: str) -> bytes:
    """Ask for a path with the session of the browser; return what curl prints."""
    cookies = "; ".join(
        f"{name}={value}" for name, value in (await person.cookies_for(here.url(LABEL))).items()
    )
    command = ["curl", "-sS", "-H", f"Cookie: {cookies}", "--resolve", f"*:{here.port}:127.0.0.1"]
    url = here.url(LABEL, path)
    done = await asyncio.to_thread(
        subprocess.run, [*command, *options, url], capture_output=True, timeout=120, check=True
    )
    return bytes(done.stdout)


async def test_a_file_goes_up_and_comes_down_as_it_was(
    here: Place, person: ChromiumWindow, tmp_path: Path
) -> None:
    content = b"".join(noise(20 * MIB))
    file = tmp_path / "grüße 漢字 100% <b>.bin"
    file.write_bytes(content)
    await in_workspace(here, "mkdir up")
    await person.open(here.url(LABEL, "/up/"))
    await person.choose("input[type=file]", file)
    await person.click("button[value=upload]")
    await person.shows("20,971,520")
    assert file.name in await person.text()
    digest = hashlib.sha256(content).hexdigest()
    assert (await in_workspace(here, "sha256sum <up/*.bin")).split()[0].decode() == digest
    downloads = tmp_path / "downloads"
    await person.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    await person.click("tbody a")
    await asyncio.to_thread(until, lambda: [*downloads.glob("*.bin")], "the file came down")
    (down,) = downloads.glob("*.bin")
    assert hashlib.sha256(down.read_bytes()).hexdigest() == digest


async def test_a_taken_name_is_told_and_replaced_only_where_asked(
    here: Place, person: ChromiumWindow, tmp_path: Path
) -> None:
    file = tmp_path / "there.txt"
    file.write_text("new")
    await in_workspace(here, "mkdir taken && echo old >taken/there.txt")
    await person.open(here.url(LABEL, "/taken/"))
    await person.choose("input[type=file]", file)
    await person.click("button[value=upload]")
    await person.shows("there.txt: there is something of this name already")
    assert await in_workspace(here, "cat taken/there.txt") == b"old\n"
    await person.click("main p a")
    await person.shows("Upload")
    await person.click("input[type=checkbox]")
    await person.choose("input[type=file]", file)
    await person.click("button[value=upload]")
    await person.shows("there.txt")
    assert await in_workspace(here, "cat taken/there.txt") == b"new"


async def test_folders_are_made_and_things_deleted_after_a_question(
    here: Place, person: ChromiumWindow
) -> None:
    await in_workspace(here, "mkdir change")
    await person.open(here.url(LABEL, "/change/"))
    await person.click("input[name=name]")
    await person.type("ein Ordner")
    await person.shows("ein Ordner/")
    await person.click("tbody td:last-child a")
    await person.shows("Delete change/ein Ordner?")
    assert await in_workspace(here, "ls change") == b"ein Ordner\n"
    await person.click("button[value=delete]")
    await person.shows("There are no files here.")
    assert await in_workspace(here, "ls change") == b""


async def test_curl_gets_parts_and_an_interrupted_download_goes_on(
    here: Place, person: ChromiumWindow, tmp_path: Path
) -> None:
    content = b"".join(noise(3 * MIB, seed=2))
    await in_workspace(here, "cat >part", content)
    assert await curl(here, person, "/part", "-r", "1000-1999") == content[1_000:2_000]
    assert await curl(here, person, "/part", "-r", "-5") == content[-5:]
    assert (
        await curl(here, person, "/part", "-r", "9000000-", "-w", "%{http_code}", "-o", "/dev/null") == b"416"
    )
    file = tmp_path / "half"
    file.write_bytes(content[:1_000_000])
    await curl(here, person, "/part", "-C", "-", "-o", str(file))
    assert file.read_bytes() == content


async def test_a_name_of_any_bytes_is_listed_and_comes_down(here: Place, person: ChromiumWindow) -> None:
    await in_workspace(
        here, r"""mkdir any && cd any && printf x >"$(printf '\377\033<img src=x onerror=alert(1)>')" """
    )
    await person.open(here.url(LABEL, "/any/"))
    await person.shows(r"\xff\x1b<img src=x onerror=alert(1)>")
    assert await curl(here, person, "/any/%FF%1B%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E") == b"x"


async def test_a_page_among_the_files_never_runs(here: Place, person: ChromiumWindow) -> None:
    await in_workspace(here, "cat >page.html", b"<script>document.title = 'it runs'</script>")
    head = (await curl(here, person, "/page.html", "-I")).decode().lower()
    assert "content-disposition: attachment" in head
    assert "content-security-policy: sandbox; default-src 'none'" in head
    assert "content-type: application/octet-stream" in head


async def test_links_that_lead_out_are_shown_and_not_followed(here: Place, person: ChromiumWindow) -> None:
    await in_workspace(here, "mkdir links && cd links && ln -s /etc out && echo in >file && ln -s file in")
    await person.open(here.url(LABEL, "/links/"))
    await person.shows("out/ → /etc")
    assert await curl(here, person, "/links/in") == b"in\n"
    code = await curl(here, person, "/links/out/passwd", "-o", "/dev/null", "-w", "%{http_code}")
    assert code == b"403"


async def test_what_another_page_sends_changes_nothing(here: Place, person: ChromiumWindow) -> None:
    await in_workspace(here, "mkdir kept && touch kept/file")
    for origin in ("http://evil.example", here.url("lab--dev--alice", ""), "null"):
        options = ["-H", f"Origin: {origin}", "-d", "", "-o", "/dev/null", "-w", "%{http_code}"]
        assert await curl(here, person, "/kept/file?delete", *options) == b"403"
    assert await in_workspace(here, "ls kept") == b"file\n"
