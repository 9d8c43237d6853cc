"""Apps that shelld starts, as a browser, the lobby and the commands of operators meet them."""

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.browser import Browser, Page
from tests.web.logins import ACCEPT, Place, place
from tests.wire.peers import until

SERVER = (
    "import http.server, json, os\n"
    "class Echo(http.server.BaseHTTPRequestHandler):\n"
    "    protocol_version = 'HTTP/1.1'\n"
    "    def do_GET(self):\n"
    "        body = ('APP ' + json.dumps({'pid': os.getpid(), 'fields': self.headers.items()})).encode()\n"
    "        self.send_response(200)\n"
    "        self.send_header('Content-Length', str(len(body)))\n"
    "        self.end_headers()\n"
    "        self.wfile.write(body)\n"
    "http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Echo).serve_forever()\n"
)


def blueprint(directory: Path) -> str:
    program = directory / "server.py"
    program.write_text(SERVER)
    start = f"exec {sys.executable} {program}"
    return json.dumps(
        {
            "name": "dev",
            "apps": {
                "lab": {"listen": {"port": "auto"}, "start": start, "ready": {"path": "/"}},
                "boot": {"listen": {"port": "auto"}, "start": start, "when": "boot"},
                "never": {"listen": {"port": "auto"}, "start": start, "when": "never"},
                "bad": {"listen": {"port": "auto"}, "start": "echo no licence; exit 4", "restart": "no"},
                "old": {"listen": {"port": 9}},
                "tool": {
                    "listen": {"port": "auto"},
                    "start": start,
                    "cors": ["lab"],
                    "embed": ["lab", "https://wiki.example.com"],
                    "host_header": "local",
                    "identity_headers": True,
                },
            },
        }
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("apps")
    with place(directory / "fairlead", program="", FAIRLEAD_WEB__DIAL_S="60") as made:
        (made.fairlead.home / "blueprints/dev.yaml").write_text(blueprint(directory))
        until(lambda: b"boot" in made.fairlead.ssh("app list", "-l", "alice+lobby").stdout, "the blueprint")
        yield made


async def opened(here: Place, app: str, **fields: str) -> Page:
    """Sign in by a link of the lobby, and open an app, waiting for it; `fields` are of a second request."""
    async with Browser(**ACCEPT, Prefer="wait=60") as browser:
        await browser.submit(await browser.get(here.link()["url"]), "sign-in")
        page = await browser.get(here.url(f"{app}--dev--alice"))
        return await browser.get(page.url, **fields) if fields else page


def origin(here: Place, app: str) -> str:
    return here.url(f"{app}--dev--alice", "")


def asked_of_app(page: Page) -> dict[str, str]:
    return {name.lower(): value for name, value in json.loads(page.html[4:])["fields"]}


def lobby(here: Place, command: str) -> tuple[int, str, str]:
    done = here.fairlead.ssh(command, "-l", "alice+lobby", timeout_s=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_an_app_is_started_by_the_first_request_of_its_owner(here: Place) -> None:
    page = await opened(here, "lab")
    assert (page.status, page.html[:4]) == (200, "APP ")
    status, out, _ = lobby(here, "app list --json")
    states = {one["app"]: one for one in json.loads(out)["apps"]}
    assert (status, states["lab"]["phase"]) == (0, "ready")
    assert states["lab"]["pid"] == json.loads(page.html[4:])["pid"]
    assert states["never"]["phase"] == "stopped"
    assert "old" not in states, "something else starts it"


async def test_an_app_of_boot_runs_once_the_workspace_does(here: Place) -> None:
    assert here.fairlead.ssh("true").returncode == 0
    until(lambda: "boot" in lobby(here, "app list")[1] and _phase(here, "boot") == "ready", "the app of boot")


def _phase(here: Place, app: str) -> str:
    states = json.loads(lobby(here, "app list --json")[1])["apps"]
    return next(one["phase"] for one in states if one["app"] == app)


async def test_a_stopped_app_is_not_started_by_requests_but_by_a_command(here: Place) -> None:
    assert (await opened(here, "lab")).status == 200
    assert lobby(here, "app stop lab") == (0, "app lab is stopped: it was stopped by alice\n", "")
    page = await opened(here, "lab")
    assert page.status == 503
    assert "it was stopped by alice" in page.text
    assert lobby(here, "app start lab")[:2] == (0, "app lab is ready\n")
    assert (await opened(here, "lab")).status == 200


async def test_an_app_that_never_starts_by_itself_is_started_by_a_command(here: Place) -> None:
    assert here.fairlead.ssh("true").returncode == 0
    page = await opened(here, "never")
    assert page.status == 503
    assert lobby(here, "app start never")[0] == 0
    assert (await opened(here, "never")).status == 200


async def test_an_app_that_fails_is_told_in_words(here: Place) -> None:
    status, out, err = lobby(here, "app start bad")
    sentence = "app bad is failed: it ended with status 4 before it was ready"
    assert (status, out, err) == (1, "", f"fairlead: {sentence}\n")
    page = await opened(here, "bad")
    assert page.status == 503
    status, out, _ = lobby(here, "app logs bad -n 3")
    assert status == 0
    assert "no licence\n" in out
    assert "it ended with status 4 before it was ready\n" in out


def test_the_lobby_names_what_is_wrong_with_a_command(here: Place) -> None:
    for command, status, sentence in (
        ("app", 2, "the following arguments are required: verb"),
        ("app start", 2, "list takes no app, and every other command takes one"),
        ("app logs lab -n 0", 2, "not a number of 1 to 10000"),
        ("app start nothing", 1, "blueprint dev has no app 'nothing'"),
        ("app start old", 1, "app old has no `start` in its blueprint"),
        ("app list -w nothing", 1, "nothing"),
    ):
        got, out, err = lobby(here, command)
        assert (got, out) == (status, ""), command
        assert sentence in err, command


def test_open_prints_the_address(here: Place) -> None:
    assert lobby(here, "app open lab") == (0, here.url() + "\n", "")
    assert json.loads(lobby(here, "app open lab -w dev --json")[1])["url"] == here.url()


def test_operators_have_the_same_commands(here: Place) -> None:
    assert here.fairlead.ssh("true").returncode == 0
    name = json.loads(here.fairlead.cli("workspace", "list", "--json"))[0]["name"]
    assert here.fairlead.cli("app", "start", name, "lab") == "app lab is ready\n"
    assert "ready" in here.fairlead.cli("app", "list", name)
    assert "ready on port" in here.fairlead.cli("app", "logs", name, "lab", "--tail", "5")
    assert here.fairlead.cli("app", "open", name, "lab") == here.url() + "\n"
    assert "it was stopped by cli:" in here.fairlead.cli("app", "stop", name, "lab")
    failed = here.fairlead.run("app", "start", name, "bad")
    assert failed.returncode == 1
    assert "no licence" in failed.stderr
    # So does the owner, by the name of the workspace.
    assert lobby(here, f"app start lab -w {name}")[0] == 0


async def test_an_app_outlives_the_proxy_that_started_it(here: Place) -> None:
    before = json.loads((await opened(here, "lab")).html[4:])["pid"]
    here.fairlead.stop()
    here.fairlead.start()
    assert json.loads((await opened(here, "lab")).html[4:])["pid"] == before


async def test_an_app_that_wants_a_local_name_and_the_user_gets_both(here: Place) -> None:
    lies = {
        "X-Fairlead-User": "root",
        "X_Fairlead_Owner": "root",
        "Referer": here.url("tool--dev--alice", "/a"),
    }
    fields = asked_of_app(await opened(here, "tool", Origin=origin(here, "tool"), **lies))
    assert fields["host"] == "localhost"
    assert fields["origin"] == "http://localhost"
    assert fields["referer"] == "http://localhost/a"
    assert fields["x-forwarded-host"] == f"tool--dev--alice.localhost:{here.port}"
    assert (fields["x-fairlead-user"], fields["x-fairlead-owner"]) == ("alice", "alice")
    plain = asked_of_app(await opened(here, "lab", **lies))
    assert plain["host"] == f"lab--dev--alice.localhost:{here.port}"
    assert not [name for name in plain if "fairlead" in name]


async def test_a_page_of_a_named_app_may_read_another_one_and_no_other_page_may(here: Place) -> None:
    reader = origin(here, "lab")
    page = await opened(here, "tool", Origin=reader)
    assert page.status == 200
    assert page.headers["Access-Control-Allow-Origin"] == reader
    assert page.headers["Access-Control-Allow-Credentials"] == "true"
    for stranger in (origin(here, "boot"), here.login, "null", "https://wiki.example.com"):
        assert (await opened(here, "tool", Origin=stranger)).status == 403, stranger
    assert (await opened(here, "lab", Origin=origin(here, "tool"))).status == 403, "one way only"


@pytest.mark.parametrize(("sender", "is_permitted"), [("lab", True), ("boot", False)])
def test_a_preflight_is_answered_for_a_named_app_only(here: Place, sender: str, is_permitted: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", here.port, timeout=60)
    fields = {
        "Host": f"tool--dev--alice.localhost:{here.port}",
        "Origin": origin(here, sender),
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-mine",
    }
    connection.request("OPTIONS", "/", headers=fields)
    answer = connection.getresponse()
    connection.close()
    assert (answer.status == 200) is is_permitted
    assert answer.headers["Access-Control-Allow-Methods"] == ("PUT" if is_permitted else None)
    assert answer.headers["Access-Control-Allow-Headers"] == ("x-mine" if is_permitted else None)


async def test_an_app_is_framed_by_pages_that_its_blueprint_names(here: Place) -> None:
    frame = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    page = await opened(here, "tool", **frame)
    assert page.status == 200
    policy = f"frame-ancestors 'self' {origin(here, 'lab')} https://wiki.example.com"
    assert page.headers["Content-Security-Policy"] == policy
    assert (await opened(here, "lab", **frame)).status == 403
    image = {**frame, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert (await opened(here, "tool", **image)).status == 403
