"""`fairlead session replay|verify` and `fairlead session recordings …`."""

import asyncio
import os
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from proxy.cli.common import HELP, Json, require_user, tell_if_cut
from proxy.cli.output import print_json, print_rows, say, warn
from proxy.errors.stores import RecordingError

if TYPE_CHECKING:
    from proxy.recording.archive import Archive, Listing
    from proxy.recording.manifest import Manifest, Signed
    from proxy.recording.replay import ReplayStep

_T = TypeVar("_T")

recordings_app = typer.Typer(help="What was recorded.", **HELP)

_COLUMNS = ("id", "user", "kind", "started_at", "ended_at", "size", "gaps", "about")

Recording = Annotated[
    str, typer.Argument(metavar="ID", help="Of a recording, or its beginning.", show_default=False)
]


def add_to(session_app: typer.Typer) -> None:
    """Add the commands on one recording to those on sessions."""
    session_app.command("replay")(replay)
    session_app.command("verify")(verify)
    session_app.add_typer(recordings_app, name="recordings")


@recordings_app.command("list")
def list_recordings(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Only those of this user.", show_default=False)] = "",
    day: Annotated[str, typer.Option(help="Only those that began on it: 2026-02-03, UTC.")] = "",
    limit: Annotated[int, typer.Option(help="At most this many, the newest.", min=1, max=100_000)] = 100,
    as_json: Json = False,
) -> None:
    """List recordings, the newest first."""

    async def act(archive: "Archive") -> "Listing":
        return await archive.newest(day=day, user=user, limit=limit + 1)

    listing = _with_archive(context, act)
    if not listing.found:
        require_user(context, user)
    rows = [_row(one.manifest) for one in listing.found[:limit]]
    print_rows(rows, as_json, _COLUMNS)
    tell_if_cut(len(rows), limit, is_cut=len(listing.found) > limit)
    for recording in listing.unreadable:
        warn(f"fairlead: the manifest of {recording} is damaged")


def verify(context: typer.Context, recording: Recording, as_json: Json = False) -> None:
    """Tell whether a recording is as it was recorded; exit 1 when it is not."""

    async def act(archive: "Archive") -> bool:
        result = await archive.verify(await archive.find(recording))
        if as_json:
            fields = ("state", "detail", "blocks", "size")
            print_json({name: getattr(result, name) for name in fields})
        else:
            say(f"{result.state}: {result.detail}")
        return result.is_sound

    if not _with_archive(context, act):
        raise typer.Exit(1)


def replay(
    context: typer.Context,
    recording: Recording,
    speed: Annotated[float, typer.Option(help="Times its own pace.", min=0.01, max=10_000)] = 1,
    idle_limit: Annotated[
        float | None, typer.Option(help="Wait at most this many seconds where nothing happened.", min=0)
    ] = None,
    export: Annotated[
        Literal["html", "cast"] | None,
        typer.Option(help="Write a page with a player, or a plain asciicast, instead.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Of --export; default: stdout.", show_default=False)
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Also pass on titles, clipboard and questions to the terminal.")
    ] = False,
) -> None:
    """Play a recording in this terminal, or export it."""

    async def act(archive: "Archive") -> None:
        found = await archive.find(recording)
        if export is None:
            await _play(archive, found.manifest, speed, idle_limit, sanitize=not raw)
        else:
            await _export(archive, found, export, output)

    _with_archive(context, act)


# ------------------------------------------------------------------------------------------ playing


async def _play(
    archive: "Archive", manifest: "Manifest", speed: float, idle_limit: float | None, *, sanitize: bool
) -> None:
    from proxy.recording.lines import read_line
    from proxy.recording.replay import ReplayPace, log_lines, play

    if manifest.format != "asciicast-2":
        if not manifest.format:
            print_json(_row(manifest))
        async for raw in archive.lines(manifest):
            if (line := read_line(raw)) is not None:
                for text in log_lines(line):
                    say(text)
        return
    with _watching(manifest):
        async for shown in play(archive.lines(manifest), ReplayPace(speed, idle_limit), sanitize=sanitize):
            await asyncio.sleep(shown.wait_s)
            _show(shown)


def _show(shown: "ReplayStep") -> None:
    sys.stdout.write(shown.text)
    sys.stdout.flush()


@contextmanager
def _watching(manifest: "Manifest") -> Iterator[None]:
    """Turn off echo and input of the terminal while inside, and restore it."""
    from proxy.recording.replay import RESET

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = termios.tcgetattr(descriptor)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        sys.stdout.write(RESET)
        sys.stdout.flush()
        # The terminal's answers to what was shown must not reach the shell.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
        warn(f"\nfairlead: end of recording {manifest.id}")


# ---------------------------------------------------------------------------------------- exporting


async def _export(
    archive: "Archive", found: "Signed", form: Literal["html", "cast"], output: Path | None
) -> None:
    from proxy.recording.page import page
    from proxy.recording.replay import plain_cast

    manifest = found.manifest
    if form == "html":
        result = await archive.verify(found)
        await _write(_encoded(page(manifest, result, archive.lines(manifest))), output)
    elif manifest.format == "asciicast-2":
        cast = plain_cast(archive.lines(manifest), has_terminal=manifest.has_terminal)
        await _write(cast, output)
    else:
        raise RecordingError(f"{manifest.id} is a recording of {manifest.kind}, which is no asciicast")


async def _encoded(pieces: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece.encode()


async def _write(pieces: AsyncIterator[bytes], output: Path | None) -> None:
    """Write to a file with mode 0600: a recording may hold secrets."""
    if output is None:
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            async for piece in pieces:
                out.write(piece)
    except OSError as exc:
        raise RecordingError(f"{output}: {exc.strerror}") from exc


# --------------------------------------------------------------------------------------------- both


def _row(manifest: "Manifest") -> dict[str, Any]:
    row = manifest.model_dump(mode="json")
    row["about"] = manifest.command or manifest.target
    return row


def _with_archive(context: typer.Context, act: Callable[["Archive"], Awaitable[_T]]) -> _T:
    from proxy.process.assemble.recordings import open_archive

    settings = context.obj.settings()

    async def main() -> _T:
        archive = open_archive(settings)
        try:
            return await act(archive)
        finally:
            await archive.close()

    return asyncio.run(main())
