"""Activity at apps: which requests and frames count, and the matrix of idleness with a clock of the test.

The matrix runs the proxy's rules and shelld's clock together: what one reports is what the other gets.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from proxy.model import TcpTarget
from proxy.userstring import UserString
from proxy.web.activity import PRESETS, Activity, counts
from proxy.web.frames import FrameScanner
from proxy.web.gate import Pass
from proxy.web.heads import Fields, Request, read_request, request_block
from proxy.web.road import Address
from shelld import activity as shelld_activity
from shelld.activity import LOOK_EVERY_S
from shelld.activity import Activity as ShelldActivity
from shelld.launch.proc import Process
from shelld.programs import registry
from shelld.programs.registry import Registry
from shelld.settings import Limits

POLL = [(b"Sec-Fetch-Mode", b"cors"), (b"Sec-Fetch-Dest", b"empty"), (b"Sec-Fetch-Site", b"same-origin")]
OPENED = [
    (b"Sec-Fetch-Mode", b"navigate"),
    (b"Sec-Fetch-Dest", b"document"),
    (b"Sec-Fetch-Site", b"same-origin"),
    (b"Sec-Fetch-User", b"?1"),
]
SOCKET = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-Fetch-Mode", b"websocket")]


def asked(method: str, target: bytes, fields: Fields = ()) -> Request:
    return read_request(method, target, "1.1", request_block([(b"Host", b"lab"), *fields]))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked("GET", b"/", OPENED), True),
        (asked("GET", b"/", [(b"Accept", b"text/html")]), True),
        (asked("GET", b"/", [*OPENED[:2], (b"Sec-Fetch-Site", b"none")]), True),
        (asked("GET", b"/", [*OPENED[:2], (b"Sec-Fetch-Site", b"cross-site")]), True),
        (asked("GET", b"/", OPENED[:3]), False),  # a page that loads itself again
        (asked("GET", b"/", [*OPENED, (b"Sec-Purpose", b"prefetch")]), False),
        (asked("GET", b"/api/status", POLL), False),
        (asked("HEAD", b"/", POLL), False),
        (asked("OPTIONS", b"/", POLL), False),
        (asked("GET", b"/", [(b"Accept", b"*/*")]), False),
        (asked("POST", b"/save", POLL), True),
        (asked("PUT", b"/api/contents/one.ipynb?token=x", POLL), True),
        (asked("DELETE", b"/api/sessions/1", POLL), True),
    ],
)
def test_opened_pages_and_changes_count_and_nothing_that_only_looks(
    request_: Request, expected: bool
) -> None:
    assert counts(request_, PRESETS["http"]) is expected
    assert counts(request_, PRESETS["jupyter"]) is expected


@pytest.mark.parametrize(
    ("preset", "target"),
    [("jupyter", b"/api/events?1"), ("jupyter", b"/user/a/api/events"), ("vscode", b"/mint-key")],
)
def test_requests_that_a_page_sends_by_itself_are_left_out_by_its_preset(preset: str, target: bytes) -> None:
    assert not counts(asked("POST", target, POLL), PRESETS[preset])
    assert counts(asked("POST", target, POLL), PRESETS["http"])


# ------------------------------------------------------------------------------------- the reports


class Clock:
    """Seconds that a test turns; stands in for the module `time` of shelld too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def address(app: str = "lab", preset: str = "http") -> Address:
    return Address("alice", UserString("alice", "dev"), TcpTarget("localhost", 1), app=app, activity=preset)


def passed(**more: object) -> Pass:
    return Pass(address(), **{"actor": "alice", **more})  # type: ignore[arg-type]


def test_the_first_act_is_reported_at_once_and_the_last_one_of_a_while_after_it() -> None:
    clock = Clock()
    said: list[str] = []
    acts = Activity(lambda _, why: said.append(why), 5, clock.monotonic)

    def act(path: bytes) -> None:
        acting = acts.begin(asked("POST", path, POLL), passed())
        assert acting is not None
        acts.act(acting)

    act(b"/one?token=secret")
    assert said == ["POST /one by alice through lab"]
    for path in (b"/two", b"/three"):
        clock.now += 1
        act(path)
        acts.tick()
    assert len(said) == 1
    clock.now += 3
    acts.tick()
    assert said[1:] == ["POST /three by alice through lab"]
    for _ in range(3):
        clock.now += 5
        acts.tick()
    assert len(said) == 2
    assert not acts._sent


@pytest.mark.parametrize("verdict", [{"is_public": True}, {"actor": ""}])
def test_visitors_without_a_login_are_no_activity(verdict: dict[str, object]) -> None:
    acts = Activity(lambda *_: None, 5, Clock().monotonic)
    assert acts.begin(asked("POST", b"/", POLL), passed(**verdict)) is None


def test_the_report_names_the_user_who_asks_and_not_the_owner() -> None:
    acts = Activity(lambda *_: None, 5, Clock().monotonic)
    acting = acts.begin(asked("POST", b"/a" * 100, POLL), passed(actor="bob"))
    assert acting is not None
    assert acting.why == f"POST {'/a' * 40}… by bob through lab"


# ------------------------------------------------------------------------------------- the matrix

IDLE_STOP_S = 600
HOUR_S = 3600


def frame(size: int, opcode: int = 2) -> bytes:
    """Write a frame of a client, whose mask is zeros."""
    assert size < 126
    return bytes((0x80 | opcode, 0x80 | size)) + bytes(4 + size)


@dataclass
class Machine:
    """A workspace, its user's browser, and a proxy between them; `run` lets time pass."""

    clock: Clock
    preset: str = "http"
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = Registry(Limits())
        self.processes: dict[int, Process] = {}
        self.servers: list[int] = []
        self.looking = ShelldActivity(self.registry, "/", self._look, lambda: self.servers)
        self.acts = Activity(lambda _, why: self.registry.touch(why), 5, self.clock.monotonic)
        self.clock.now += 2
        self.looking.look()  # what this process buried before is no activity of the workspace
        self.registry.touch("the start")

    def _look(self) -> list[Process]:
        return [Process(os.getpid(), 0, os.getpid(), "S", 0.0, 0), *self.processes.values()]

    def passed(self) -> Pass:
        return Pass(address(preset=self.preset), actor="alice")

    def compute(self, pid: int, session: int, cpu_s: float) -> None:
        before = self.processes.get(pid)
        total_s = cpu_s + (0.0 if before is None else before.cpu_s)
        self.processes[pid] = Process(pid, os.getpid(), session, "S", total_s, 0)

    def ask(self, method: str, target: bytes, fields: Fields = POLL) -> None:
        """Send a request that succeeds at once."""
        acting = self.acts.begin(asked(method, target, fields), self.passed())
        if acting is not None:
            self.acts.act(acting)

    def socket(self, target: bytes) -> Callable[[bytes], None]:
        """Open a WebSocket; the result sends bytes of its client."""
        acting = self.acts.begin(asked("GET", target, SOCKET), self.passed())
        scanner = FrameScanner()
        if acting is not None:
            scanner.over_bytes = acting.over_bytes

        def send(data: bytes) -> None:
            scanner.feed(data)
            if acting is not None:
                self.acts.look(acting, scanner.data_bytes)

        return send

    def run(self, each_second: Callable[[int], None], for_s: int = HOUR_S) -> int:
        """Return the second in which the workspace stops; `for_s` where it does not."""
        for second in range(1, for_s):
            self.clock.now += 1
            each_second(second)
            self.acts.tick()
            if second % int(LOOK_EVERY_S) == 0:
                self.looking.look()
            if self.registry.idle_s >= IDLE_STOP_S:
                return second
        return for_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    clock = Clock()
    monkeypatch.setattr(registry, "time", clock)
    monkeypatch.setattr(shelld_activity, "time", clock)
    return Machine(clock)


def lab(machine: Machine) -> Callable[[int], None]:
    """Return what JupyterLab does in a hidden tab, with a kernel that does nothing."""
    machine.preset = "jupyter"
    machine.servers = [50]
    channels = machine.socket(b"/api/kernels/1/channels?session_id=2")

    def each_second(second: int) -> None:
        machine.compute(50, 50, 0.03)  # the server, for its polls
        machine.compute(60, 60, 0.005)  # the kernel
        if second % 10 == 0:
            for path in (b"/api/kernels?1", b"/api/sessions?1", b"/api/terminals?1", b"/api/status"):
                machine.ask("GET", path)
            machine.ask("POST", b"/api/events")
            machine.ask("PUT", b"/lab/api/workspaces/default?1")
        if second % 30 == 0:
            channels(frame(0, opcode=10))  # its answer to a ping

    return each_second


def editor(machine: Machine) -> Callable[[int], None]:
    """Return what VS Code does in a hidden tab."""
    machine.preset = "vscode"
    machine.servers = [50]
    management = machine.socket(b"/stable-1?reconnectionToken=2")

    def each_second(second: int) -> None:
        machine.compute(50, 50, 0.015)
        if second % 5 == 0:
            management(frame(13))
        if second % 120 == 0:
            machine.ask("POST", b"/mint-key")

    return each_second


def test_a_hidden_lab_tab_is_idle(machine: Machine) -> None:
    assert machine.run(lab(machine)) == IDLE_STOP_S
    assert machine.registry.why == "the start"


def test_a_hidden_editor_tab_is_idle(machine: Machine) -> None:
    assert machine.run(editor(machine)) == IDLE_STOP_S


def test_a_poll_each_five_seconds_is_idle(machine: Machine) -> None:
    def poll(second: int) -> None:
        if second % 5 == 0:
            machine.ask("GET", b"/api/state")

    assert machine.run(poll) == IDLE_STOP_S


def test_a_long_download_is_in_use_until_it_ends(machine: Machine) -> None:
    acting = machine.acts.begin(asked("GET", b"/large.iso", OPENED), machine.passed())
    assert acting is not None
    ends = 1800

    def carry(second: int) -> None:
        if second < ends:
            machine.acts.look(acting, second * 1000)

    assert ends + IDLE_STOP_S - 10 <= machine.run(carry) <= ends + IDLE_STOP_S + 10
    assert machine.registry.why == "GET /large.iso by alice through lab"


def test_a_computing_kernel_is_in_use_and_its_server_is_not(machine: Machine) -> None:
    hidden = lab(machine)

    def compute(second: int) -> None:
        hidden(second)
        machine.compute(60, 60, 0.05)

    assert machine.run(compute) == HOUR_S
    assert machine.registry.why.endswith("(pid 60) was computing")


def test_a_server_that_computes_by_itself_is_in_use(machine: Machine) -> None:
    machine.servers = [50]

    def compute(second: int) -> None:
        machine.compute(50, 50, 0.5)

    assert machine.run(compute) == HOUR_S


def test_a_tunnel_with_keepalives_only_is_idle(machine: Machine) -> None:
    with machine.registry.connection() as tunnel:
        machine.registry.touch("the start")

        def keep_alive(second: int) -> None:
            if second % 5 == 0:
                tunnel.carried(100)

        assert machine.run(keep_alive) == IDLE_STOP_S


def test_a_quiet_connection_is_no_activity_whatever_it_carries(machine: Machine) -> None:
    with machine.registry.connection(quiet=True) as stream:
        assert machine.run(lambda _: stream.carried(1024 * 1024)) == IDLE_STOP_S


@pytest.mark.parametrize(
    ("preset", "target", "data"),
    [
        ("jupyter", b"/api/kernels/1/channels", frame(100)),  # a cell is run
        ("jupyter", b"/terminals/websocket/1", frame(13)),  # a key is pressed in a terminal
        ("vscode", b"/stable-1", frame(120) * 9),  # a line is typed
        ("http", b"/any", frame(1)),
    ],
)
def test_what_a_user_types_is_in_use(machine: Machine, preset: str, target: bytes, data: bytes) -> None:
    machine.preset = preset
    send = machine.socket(target)

    def each_second(second: int) -> None:
        if second % 300 == 0:
            send(data)

    assert machine.run(each_second) == HOUR_S
    assert machine.registry.why == f"WebSocket {target.decode()} by alice through lab"


@pytest.mark.parametrize("target", [b"/api/kernels/1/channels", b"/api/collaboration/room/1"])
def test_what_is_no_message_of_a_kernel_is_idle(machine: Machine, target: bytes) -> None:
    machine.preset = "jupyter"
    send = machine.socket(target)
    assert machine.run(lambda _: send(frame(32))) == IDLE_STOP_S
