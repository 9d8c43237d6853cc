"""`fairlead run`: a private Fairlead without configuration, for the user who runs it.

It authorises that user's keys, writes a first blueprint, and prints the line to type. Everything is kept
under `home`, where a second run finds it. Nothing outside `home` is written.
"""

import asyncio
import base64
import errno
import hashlib
import hmac
import os
import pwd
import re
import shlex
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy import __version__
from proxy.addresses import split_address
from proxy.blueprints.sources import blueprint_files
from proxy.errors import FairleadError
from proxy.errors.stores import IdentityError, KeyInvalid, UserExists
from proxy.identity.directory import Directory, check_name
from proxy.identity.keys import PublicKey, parse_public_key, parse_public_keys
from proxy.identity.store import SqlDirectory
from proxy.process.assemble.database import open_to_serve
from proxy.settings import Settings

SSH_AGENT_TIMEOUT_S = 5.0
"""An ssh-agent that asks its owner, or one behind a dead connection, must not delay the start for longer."""

_WEB_LISTEN = "127.0.0.1:8022"
"""Address of apps; if it is taken, any free port."""

_DEFAULT_IDENTITIES = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")  # ssh_config(5)

_DEV_BLUEPRINT = """\
# A shell of this machine, in a home of its own. What else can stand here:
# env, accept_env, shell, init, forward, splash, accounts, idle_stop_s, limits.
name: dev
description: a shell of this machine
# Each app has an address in the browser; one with `start` is started by the first request. Ports are those of
# common development servers, started over SSH. `share: public` opens an app to all who reach the web half.
apps:
  files: {title: Files, built_in: files}
  node: {title: port 3000, listen: {port: 3000}}
  vite: {title: port 5173, listen: {port: 5173}}
  http: {title: port 8000, listen: {port: 8000}}
"""
_JUPYTER = """  lab:
    title: JupyterLab
    listen: {socket: auto}
    # No token: the socket is in a directory of this account, and Fairlead asks who comes.
    start: >-
      exec %s --no-browser --ServerApp.sock="$FAIRLEAD_APP_SOCKET" --ServerApp.allow_remote_access=True
      --IdentityProvider.token= $(test "$(id -u)" != 0 || echo --allow-root)
    ready: {path: /api, within_s: 120}
    activity: jupyter
"""
_CODE_SERVER = """  code:
    title: VS Code
    listen: {socket: auto}
    start: >-
      exec %s --socket "$FAIRLEAD_APP_SOCKET" --auth none --disable-telemetry --disable-update-check "$HOME"
    ready: {path: /healthz, within_s: 120}
    activity: vscode
"""
_WITHOUT_JUPYTER = """  lab: {title: port 8888, listen: {port: 8888}}
"""


@dataclass(frozen=True, slots=True)
class Found:
    """The keys of one user, and which of them `ssh` uses by itself."""

    files: dict[Path, list[PublicKey]]
    """By `.pub` file."""
    ssh_agent: list[PublicKey]

    def identity(self) -> tuple[bool, Path | None]:
        """Return whether any of these can log in, and the file for `ssh -i` if one is needed."""
        if self.ssh_agent:
            return True, None
        private = [path.with_suffix("") for path in self.files if path.with_suffix("").exists()]
        if any(path.name in _DEFAULT_IDENTITIES and path.parent == _ssh_dir() for path in private):
            return True, None
        return bool(private), private[0] if private else None


@dataclass(frozen=True, slots=True)
class Prepared:
    """The facts to print about how to connect."""

    user: str
    blueprint: str
    home: Path
    identity: Path | None
    keys: str
    """Origin of the keys, in words."""


async def prepare(settings: Settings) -> Prepared:
    """Create the files that a first login needs; existing ones stay.

    Raises: FairleadError when the address is taken or `home` cannot be written; StoreError.
    """
    _require_free(settings.listen)
    home = settings.state_dir
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_first_blueprint(settings.blueprint_dir)
        found = Found(files=_keys_of_files(Path.home() / ".ssh"), ssh_agent=await _keys_of_ssh_agent())
        can_log_in, identity = found.identity()
        own = []
        if not can_log_in:
            identity = home / "quickstart_ed25519"
            own = [_own_key(identity)]
    except OSError as exc:
        raise FairleadError(
            f"{exc.filename or home}: {exc.strerror}; FAIRLEAD_HOME names another place"
        ) from exc
    user = user_name(_account_name())
    keys = [*own, *found.ssh_agent, *(key for keys in found.files.values() for key in keys)]
    database = await open_to_serve(
        settings.database_url,
        query_timeout_s=settings.identity.query_timeout_s,
        pinned=settings.identity.installation,
        memory=settings.installation_file,
    )
    try:
        await _authorise(await SqlDirectory.in_database(database, uids=settings.identity.uids), user, keys)
    finally:
        await database.close()
    return Prepared(
        user, settings.blueprint.default, home, identity, _in_words(found, identity if own else None)
    )


def with_web(settings: Settings) -> Settings:
    """Serve web apps on loopback, unless the settings name an address or turn them off."""
    web = settings.web
    if "dev_user" not in web.model_fields_set:
        web = web.model_copy(update={"dev_user": user_name(_account_name())})
    settings = settings.model_copy(update={"web": web})
    if "listen" in settings.web.model_fields_set:
        return settings
    listen = _WEB_LISTEN
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(split_address(_WEB_LISTEN))
        except OSError:
            listen = _WEB_LISTEN.rpartition(":")[0] + ":0"
    return settings.model_copy(update={"web": settings.web.model_copy(update={"listen": listen})})


def announce(
    prepared: Prepared,
    host: str,
    port: int,
    fingerprints: Sequence[str],
    host_keys: Sequence[str],
    apps: Sequence[tuple[str, str]] = (),
    login_url: str = "",
) -> None:
    """Print how to connect; `host_keys` are lines of a known_hosts file.

    `apps` are titles and addresses of web apps, which `login_url` signs a browser in for.
    """
    known_hosts = _own_known_hosts(prepared.home, host, port, host_keys)
    line = ssh_line(prepared, host, port, known_hosts=known_hosts, near=Path.cwd())
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    width = max((len(url) for _, url in apps), default=0)
    facts = {
        **({"web": "\n".join(f"{url:{width}}  {title}" for title, url in apps)} if apps else {}),
        **({"web login": login_url} if login_url else {}),
        "user": f"{prepared.user}, with {prepared.keys}",
        "host keys": "\n".join(fingerprints),
        "state": _near(prepared.home, Path.cwd()),
    }
    if not sys.stdout.isatty():
        words = "\n".join(f"{label}: {part}" for label, text in facts.items() for part in text.split("\n"))
        print(f"Fairlead {__version__} listens on {address}\n{line}\n{words}", flush=True)  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    for label, text in facts.items():
        table.add_row(Text(label, style="dim"), Text(text))
    console.print(f"\nFairlead {__version__} listens on {address}. Type in another terminal:\n", markup=False)
    # Not wrapped, so that it can be copied whole.
    console.print(Text("  " + line, style="bold green"), soft_wrap=True)
    console.print()
    console.print(table)
    console.print(Text("\nCtrl-C stops Fairlead; workspaces keep running.", style="dim"))


def ssh_line(prepared: Prepared, host: str, port: int, *, known_hosts: Path | None, near: Path) -> str:
    """Return the command to type; paths below `near` are relative. Pure."""
    words = ["ssh"]
    if port != 22:
        words += ["-p", str(port)]
    if prepared.identity:
        words += ["-i", _near(prepared.identity, near)]
    if known_hosts:
        words += ["-o", f"UserKnownHostsFile={_near(known_hosts, near)}"]
    return shlex.join([*words, f"{prepared.user}+{prepared.blueprint}@{reachable(host)}"])


def reachable(host: str) -> str:
    """Return an address of the same machine for an address to listen on."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def user_name(account: str) -> str:
    """Return an account's name in the form that a user string permits."""
    name = re.sub(r"[^a-z0-9_.-]", "-", account.lower()).lstrip(".-").rstrip(".")
    try:
        return check_name(name[:64])
    except IdentityError:
        return "user"


def knows(known_hosts: str, host: str, port: int, host_keys: Sequence[str]) -> bool:
    """Return whether a known_hosts file has this address with a key of ours, so that ssh asks nothing.

    Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
    """
    name = host if port == 22 else f"[{host}]:{port}"
    ours = {tuple(line.split()[:2]) for line in host_keys}
    known = set()
    for line in known_hosts.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[0][0] not in "#@" and _names(fields[0], name):
            known.add((fields[1], fields[2]))
    return bool(known & ours)


def _names(field: str, name: str) -> bool:
    if not field.startswith("|1|"):
        return name in field.split(",")
    try:
        salt, digest = (base64.b64decode(part) for part in field[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), hashlib.sha1), digest)


def _own_known_hosts(home: Path, host: str, port: int, host_keys: Sequence[str]) -> Path | None:
    """Write a known_hosts file under `home`, unless the user's own file has our key.

    With it the printed command works at once, without a question, and after a fresh clone with other keys.
    """
    target = reachable(host)
    with suppress(OSError):
        known = (_ssh_dir() / "known_hosts").read_text(encoding="utf-8", errors="replace")
        if knows(known, target, port, host_keys):
            return None
    file = home / "known_hosts"
    name = target if port == 22 else f"[{target}]:{port}"
    file.write_text("".join(f"{name} {line}\n" for line in host_keys), encoding="utf-8")
    return file


def _require_free(listen: str) -> None:
    """Check that the port is free before anything is created. Raises: FairleadError with advice."""
    host, port = split_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as exc:
            taken = exc.errno == errno.EADDRINUSE
            why = "is taken (does Fairlead run already?)" if taken else f"cannot be used: {exc.strerror}"
            raise FairleadError(
                f"{listen} {why}; choose another, for example FAIRLEAD_LISTEN=127.0.0.1:{port % 65_535 + 1}"
            ) from None


def _write_first_blueprint(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not blueprint_files(directory):
        (directory / "dev.yaml").write_text(_first_blueprint(), encoding="utf-8")


def _first_blueprint() -> str:
    """Return a blueprint with the apps whose programs are found on this machine, where workspaces run."""
    lab, code = which("jupyter-lab"), which("code-server")
    text = _DEV_BLUEPRINT + (_JUPYTER % shlex.quote(lab) if lab else _WITHOUT_JUPYTER)
    return text + (_CODE_SERVER % shlex.quote(code) if code else "")


def _account_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "user"


def _ssh_dir() -> Path:
    """Return the directory where `ssh` looks by itself: it asks passwd and not HOME."""
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh"
    except KeyError:
        return Path.home() / ".ssh"


def _keys_of_files(directory: Path) -> dict[Path, list[PublicKey]]:
    found = {}
    for file in sorted(directory.glob("*.pub")):
        try:
            found[file] = parse_public_keys(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, KeyInvalid):
            continue  # a certificate, a weak key or no key at all: it cannot log in
    return found


async def _keys_of_ssh_agent() -> list[PublicKey]:
    if not os.environ.get("SSH_AUTH_SOCK"):
        return []
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec("ssh-add", "-L", stdin=null, stdout=pipe, stderr=null)
    except OSError:
        return []
    try:
        async with asyncio.timeout(SSH_AGENT_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        return []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _usable(output.decode(errors="replace").splitlines()) if process.returncode == 0 else []


def _usable(lines: Iterable[str]) -> list[PublicKey]:
    found = []
    for line in lines:
        try:
            found.append(parse_public_key(line))
        except KeyInvalid:
            continue
    return found


def _own_key(file: Path) -> PublicKey:
    """Read our own key, or create it: the private half is written last and is private from the start."""
    public_file = file.with_name(file.name + ".pub")
    if not file.exists():
        private = Ed25519PrivateKey.generate()
        openssh = serialization.Encoding.OpenSSH
        public = private.public_key().public_bytes(openssh, serialization.PublicFormat.OpenSSH)
        public_file.write_bytes(public + b" fairlead quick start\n")
        draft = file.with_name(file.name + ".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(
                private.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.OpenSSH,
                    serialization.NoEncryption(),
                )
            )
        draft.replace(file)
    return parse_public_keys(public_file.read_text(encoding="utf-8"))[0]


async def _authorise(directory: Directory, user: str, keys: Iterable[PublicKey]) -> None:
    with suppress(UserExists):
        await directory.add_user(user)
    for key in keys:
        await directory.add_key(user, key, origin="quickstart")


def _in_words(found: Found, own: Path | None) -> str:
    if own:
        return "a key made for this"
    in_files = sum(len(keys) for keys in found.files.values())
    parts = [f"{in_files} key{'s' * (in_files != 1)} of ~/.ssh"] if in_files else []
    if found.ssh_agent:
        parts.append(f"{len(found.ssh_agent)} of the ssh-agent")
    return " and ".join(parts)


def _near(path: Path, near: Path) -> str:
    return str(path.relative_to(near)) if path.is_relative_to(near) else str(path)
