"""`fairlead onboarding …`: new users who approved in a browser and wait for an operator."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.common import HELP, Json, Tell, actor, administer, with_directory
from proxy.cli.output import onboarding_row, print_json, print_rows, warn

if TYPE_CHECKING:
    from proxy.identity.directory import Directory, OnboardingRecord

onboarding_app = typer.Typer(help="People who wait to be let in.", **HELP)

_COLUMNS = (
    "id",
    "status",
    "name",
    "email",
    "provider",
    "login",
    "fingerprint",
    "source_address",
    "created_at",
)

Ids = Annotated[
    list[int], typer.Argument(help="As `onboarding list` prints them.", metavar="ID...", show_default=False)
]


@onboarding_app.command("list")
def list_onboardings(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that are decided.")] = False,
    as_json: Json = False,
) -> None:
    """List who waits; the keys were proved, and are the accounts' own."""
    records = with_directory(context, lambda directory: directory.list_onboardings())
    rows = [onboarding_row(record) for record in records]
    print_rows([row for row in rows if every or row["status"] == "waitlisted"], as_json, _COLUMNS)


@onboarding_app.command("approve")
def approve(context: typer.Context, ids: Ids, as_json: Json = False) -> None:
    """Make users of people who wait: their next login is let in by the key that they proved."""

    async def act(directory: "Directory", tell: Tell) -> "list[OnboardingRecord]":
        from proxy.events.schema import KeyAdded, Onboarded

        records = []
        for number in ids:
            record = await directory.approve(number, actor())
            records.append(record)
            provider, shown = record.account.provider, record.key.fingerprint
            tell(
                Onboarded(
                    user=record.name, provider=provider, account=record.account.login, fingerprint=shown
                )
            )
            tell(
                KeyAdded(
                    user=record.name,
                    actor=actor(),
                    fingerprint=shown,
                    key_type=record.key.algorithm,
                    origin=provider,
                )
            )
        return records

    _decide(context, act, as_json, "is let in")


@onboarding_app.command("reject")
def reject(context: typer.Context, ids: Ids, as_json: Json = False) -> None:
    """Keep people who wait out, until they are approved after all."""

    async def act(directory: "Directory", tell: Tell) -> "list[OnboardingRecord]":
        from proxy.errors.login import OnboardingRejected
        from proxy.events.schema import OnboardingRefusedEvent

        records = []
        for number in ids:
            record = await directory.reject(number, actor())
            records.append(record)
            tell(
                OnboardingRefusedEvent(
                    user=record.name,
                    provider=record.account.provider,
                    account=record.account.login,
                    fingerprint=record.key.fingerprint,
                    reasons=(OnboardingRejected.code,),
                )
            )
        return records

    _decide(context, act, as_json, "stays out")


def _decide(
    context: typer.Context,
    act: "Callable[[Directory, Tell], Awaitable[list[OnboardingRecord]]]",
    as_json: bool,
    what: str,
) -> None:
    records = administer(context, act)
    if as_json:
        print_json([onboarding_row(record) for record in records])
        return
    for record in records:
        warn(f"{record.name} ({record.account.provider} account {record.account.login}) {what}")
