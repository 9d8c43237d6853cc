"""The apps that a signed-in user may open: decided in memory, alike for absent and forbidden ones."""

from typing import NamedTuple

from proxy.blueprints.apps import App
from proxy.blueprints.catalog import Catalog
from proxy.model import Target
from proxy.userstring import UserString
from proxy.web.origins import Place, label_of, parse_label
from proxy.web.road import OwnApp

TERMINAL = "terminal"
OWN_APPS = {TERMINAL: "Terminal"}
"""Titles of the apps that the proxy itself serves for every workspace, by slug."""


class Opened(NamedTuple):
    """An app that the user who asks may open."""

    workspace: UserString
    target: Target | OwnApp
    share: str
    title: str
    label: str
    slug: str = ""


class Places:
    """One per process; never waits."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def find(self, actor: str, label: str) -> Opened | None:
        """Return the app of a label that `actor` owns.

        None for a label that stands for nothing, and for an app of another user alike.
        """
        parsed = parse_label(label)
        if parsed is None:
            return None
        return next((one for one in self.of(actor, parsed.app) if one.label == label), None)

    def of(self, actor: str, wanted: str = "") -> list[Opened]:
        """Return the apps of the workspaces of a user, ours included; `wanted` names one slug."""
        return [
            opened
            for definition in self._catalog.current().definitions.values()
            if not definition.sample.abstract
            for opened in (
                *(_opened(actor, definition.name, slug, app) for slug, app in definition.sample.apps.items()),
                *(_own(actor, definition.name, slug, title) for slug, title in OWN_APPS.items()),
            )
            if wanted in ("", opened.slug)
        ]


def _opened(actor: str, blueprint: str, slug: str, app: App) -> Opened:
    workspace = UserString(actor, blueprint)
    label = label_of(Place(slug, workspace))
    return Opened(workspace, app.target(slug), app.share, app.title or slug, label, slug)


def _own(actor: str, blueprint: str, slug: str, title: str) -> Opened:
    workspace = UserString(actor, blueprint)
    return Opened(workspace, OwnApp(slug), "owner", title, label_of(Place(slug, workspace)), slug)
