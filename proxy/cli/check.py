"""`fairlead check`: a look at everything that the settings name."""

import asyncio
from typing import TYPE_CHECKING

import typer

from proxy.cli.common import Json
from proxy.cli.output import print_rows

if TYPE_CHECKING:
    from proxy.settings import Settings


def check(context: typer.Context, as_json: Json = False) -> None:
    """Try everything that the settings name, and say of each whether it works; exit 1 on an error."""
    from proxy import log
    from proxy.process.checks import Status
    from proxy.process.checks.everything import check_all

    settings: Settings = context.obj.settings()
    log.configure("error", "text")
    findings = asyncio.run(check_all(settings))
    rows = [{"status": str(one.status), "check": one.name, "says": one.says} for one in findings]
    print_rows(rows, as_json, ("status", "check", "says"))
    if any(one.status is Status.ERROR for one in findings):
        raise typer.Exit(1)
