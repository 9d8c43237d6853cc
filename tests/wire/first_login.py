"""Writes docs/first-login.md from a first login as it happens: `python -m tests.wire.first_login`."""

import re
import sys
import tempfile
import textwrap
from html import unescape
from pathlib import Path

from tests.wire.browser import Shown, decide
from tests.wire.newcomer import House, Newcomer, open_house
from tests.wire.terminal import Terminal

PAGE = Path(__file__).parents[2] / "docs" / "first-login.md"
_PORT = 2222

_TEXT = """\
# A first login

The user name `somebody` is not registered yet. Its user types the first command, opens the link in a browser,
compares the code and presses *Approve*. Then the shell opens in the same connection; the user types nothing
into the terminal in between. This is the output of OpenSSH in a terminal of 80 columns, without the middle of
the QR code.

```
$ ssh -p {port} somebody+dev@127.0.0.1
{first}
```

The development provider of `make run` serves this page on loopback:

```
{page}
```

The page has a host name of its own, because cookies do not depend on the port: on `127.0.0.1` or `localhost`,
a program behind `ssh -L` would share its cookies. Chromium, Firefox and curl resolve every name below
`localhost` to their own machine. Other browsers ask the resolver of the system. If a browser cannot find
`login.localhost`, add this line to `/etc/hosts`:

```
127.0.0.1 login.localhost
```

For later logins, the key is enough:

```
$ ssh -p {port} somebody+dev@127.0.0.1 'echo in'
{again}
```

*Made by `python -m tests.wire.first_login`, which starts a proxy, runs OpenSSH's client in a
pseudo-terminal and answers the page over HTTP. Addresses, codes and fingerprints are those of that run.*
"""


def _log_in(house: House, directory: Path) -> tuple[str, str, str]:
    """Give what the terminal showed the first time, what the page said, and what came the second time."""
    person = Newcomer(house, "somebody", directory)
    with Terminal(person.command(), columns=80, rows=60, env={"LC_ALL": "C.UTF-8"}) as terminal:
        code = terminal.expect(r"open +(http\S+)(?s:.*?)enter the code +(\S+)(?s:.*?)nothing to type.*\n")
        page = decide(Shown(code.group(1), code.group(2)), look_only=True)
        decide(Shown(code.group(1), code.group(2)))
        terminal.expect(r"[#$%>] ?$")
        first = terminal.text
        terminal.send("exit\r")
        terminal.wait()
    again = person.silently()
    return first, page.html, (again.stdout + again.stderr).decode().strip()


def _shorten(text: str) -> str:
    """Leave out the middle of the QR code."""
    lines = text.strip().splitlines()
    drawn = [number for number, line in enumerate(lines) if re.search("[▀▄█]{4,}", line)]
    cut = drawn[4:-4]
    return "\n".join(
        "    ⋮" if number == cut[0] else line for number, line in enumerate(lines) if number not in cut[1:]
    )


def _render(html: str) -> str:
    """Write a page down as it reads."""
    body = html.partition("<main>")[2].partition('<p class="warning">')[0]
    for tag, mark in (
        ("</h1>", "\n\n"),
        ("</dl>", "\n"),
        ("</dt>", "\t"),
        ("</div>", "\n"),
        ("</p>", "\n\n"),
        ("</label>", "  "),
    ):
        body = body.replace(tag, mark)
    body = re.sub(r'<input type="text"[^>]*value="([^"]*)"[^>]*>', r"[ \1 ]\n\n", body)
    body = body.replace("<button", "[ <button").replace("</button>", " ]  ").replace("<dl>", "\n")
    lines = unescape(re.sub(r"<[^>]+>", "", body)).strip().splitlines()
    rows = [line.partition("\t") for line in lines]
    written = [f"{label:<14}{value}" if tab else textwrap.fill(label, 78) for label, tab, value in rows]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in written))


def main() -> None:
    with tempfile.TemporaryDirectory() as name, open_house(Path(name) / "house", None) as house:
        first, page, again = _log_in(house, Path(name))
        port = str(house.fairlead.port)
    text = _TEXT.format(first=_shorten(first), page=_render(page), again=again, port=_PORT)
    PAGE.write_text(text.replace(f":{port}", f":{_PORT}"), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
