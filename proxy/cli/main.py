"""The command line: it parses words, calls one module, and prints a table or JSON. No decisions.

Heavy modules are imported inside the commands that need them, so that the others answer at once.
Exit status: 0, 1 with one sentence on stderr, 2 for a wrong command line, 78 for settings that cannot be
used.
"""

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy import __version__
from proxy.cli.apps import app_app
from proxy.cli.bans import ban_app
from proxy.cli.blueprints import blueprint_app
from proxy.cli.check import check
from proxy.cli.common import HELP, Json
from proxy.cli.database import database_app
from proxy.cli.onboarding import onboarding_app
from proxy.cli.output import print_json, print_lines, say, warn
from proxy.cli.providers import provider_app
from proxy.cli.recordings import add_to as add_recordings_to
from proxy.cli.sessions import session_app
from proxy.cli.trust import trust_app
from proxy.cli.users import key_app, user_app
from proxy.cli.workspaces import workspace_app
from proxy.errors import EXIT_CONFIG, FairleadError, SettingsError

if TYPE_CHECKING:
    from proxy.settings import Settings

app = typer.Typer(
    help="SSH bastion into workspaces: ssh user+blueprint@host with any stock SSH client.",
    pretty_exceptions_enable=False,
    add_completion=False,
    **HELP,
)
app.add_typer(user_app, name="user")
app.add_typer(key_app, name="key")
app.add_typer(ban_app, name="ban")
app.add_typer(onboarding_app, name="onboarding")
app.add_typer(provider_app, name="provider")
app.add_typer(blueprint_app, name="blueprint")
app.add_typer(workspace_app, name="workspace")
app.add_typer(app_app, name="app")
app.add_typer(trust_app, name="trust")
app.add_typer(database_app, name="database")
app.command("check")(check)
add_recordings_to(session_app)
app.add_typer(session_app, name="session")

Listen = Annotated[str | None, typer.Option(help="host:port of the SSH listener.")]
AnyoneAnyUser = Annotated[
    bool,
    typer.Option(
        "--dev-anyone-may-be-any-user",
        help="Start the development provider also where others reach SSH or its page. It asks for no "
        "password: anyone who reaches its page may become any user.",
    ),
]


@dataclass(frozen=True, slots=True)
class _Options:
    """The options before the command."""

    config: Path | None
    home: Path | None

    def settings(self, **overrides: Any) -> "Settings":
        from proxy.settings import load

        given = {"home": self.home and str(self.home), **overrides}
        return load(
            file=self.config, overrides={key: value for key, value in given.items() if value is not None}
        )

    def to_serve(self, listen: str | None, anyone_any_user: bool) -> "Settings":
        """Return the settings of a serving proxy, with all errors that would prevent its start."""
        door = {"dev_anyone_may_be_any_user": True} if anyone_any_user else None
        settings = self.settings(listen=listen, front_door=door)
        settings.check_dev_provider()
        return settings


def main() -> None:
    """Run one command; errors of ours become one sentence and an exit status."""
    try:
        app(prog_name="fairlead")
    except FairleadError as exc:
        warn(f"fairlead: {exc}")
        sys.exit(EXIT_CONFIG if isinstance(exc, SettingsError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"fairlead {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; also FAIRLEAD_CONFIG.")] = None,
    home: Annotated[Path | None, typer.Option(help="Directory of all state; also FAIRLEAD_HOME.")] = None,
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = _Options(config, home)


# ------------------------------------------------------------------------------------------ serving


@app.command()
def run(context: typer.Context, listen: Listen = None, anyone_any_user: AnyoneAnyUser = False) -> None:
    """Try it on this machine: authorise your keys, serve, and print the ssh line to type."""
    from proxy.cli import quickstart
    from proxy.process import serve as application

    settings: Settings = quickstart.with_web(context.obj.to_serve(listen, anyone_any_user))

    async def program() -> None:
        prepared = await quickstart.prepare(settings)
        await application.serve(
            settings,
            on_ready=lambda host, port, keys, web: quickstart.announce(
                prepared,
                host,
                port,
                keys.fingerprints,
                keys.public_lines,
                apps=web.apps_of(prepared.user, prepared.blueprint) if web else (),
                login_url=web.login_url if web else "",
            ),
        )

    # A new operator needs the line to type, and finds it when nothing else is printed.
    _serve(settings, program, level=None if "level" in settings.log.model_fields_set else "warning")


@app.command()
def serve(context: typer.Context, listen: Listen = None, anyone_any_user: AnyoneAnyUser = False) -> None:
    """Serve with the configured settings, and nothing made up."""
    settings: Settings = context.obj.to_serve(listen, anyone_any_user)
    from proxy.process import serve as application

    _serve(settings, lambda: application.serve(settings))


def _serve(
    settings: "Settings", program: Callable[[], Coroutine[Any, Any, None]], level: str | None = None
) -> None:
    import uvloop

    from proxy import log

    log.configure(level or settings.log.level, settings.log.format)
    uvloop.run(program())


@app.command("settings")
def show_settings(context: typer.Context, as_json: Json = False) -> None:
    """Print the settings in effect."""
    import yaml

    values = context.obj.settings().model_dump(mode="json")
    if as_json:
        print_json(values)
    else:
        print_lines(yaml.safe_dump(values, sort_keys=False))
