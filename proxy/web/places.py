"""The apps that a signed-in user may open: decided in memory, alike for absent and forbidden ones."""

from typing import NamedTuple

from proxy.blueprints.apps import App
from proxy.blueprints.catalog import Catalog
from proxy.model import Target
from proxy.userstring import UserString
from proxy.web.origins import Place, label_of, parse_label


class Opened(NamedTuple):
    """An app that the user who asks may open."""

    workspace: UserString
    target: Target
    share: str
    title: str
    label: str
    slug: str


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
        """Return the apps that blueprints declare for the workspaces of a user; `wanted` names one slug."""
        return [
            _opened(actor, definition.name, slug, app)
            for definition in self._catalog.current().definitions.values()
            if not definition.sample.abstract
            for slug, app in definition.sample.apps.items()
            if wanted in ("", slug)
        ]


def _opened(actor: str, blueprint: str, slug: str, app: App) -> Opened:
    workspace = UserString(actor, blueprint)
    label = label_of(Place(slug, workspace))
    return Opened(workspace, app.target(slug), app.share, app.title or slug, label, slug)
