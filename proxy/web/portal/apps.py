"""Tiles of web apps: those of a user's workspaces, and those that other users share with the user."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.sharing import OWNER_ONLY, Share
from proxy.model import User
from proxy.userstring import UserString
from proxy.web.origins import Origins
from proxy.web.places import Opened

_ICONS = {
    "jupyter": ("jupyter", "lab", "notebook"),
    "code": ("code", "editor", "vscode", "ide"),
    "files": ("files", "file", "storage"),
    "terminal": ("terminal", "shell", "tty"),
    "chart": ("tensorboard", "grafana", "dashboard", "metrics", "streamlit"),
    "database": ("postgres", "database", "adminer", "pgadmin", "redis"),
}
"""Names of our icons, and parts of slugs that stand for them."""
ICONS = frozenset(_ICONS) | {"app"}


class Tile(NamedTuple):
    """One app on a page."""

    title: str
    url: str
    icon: str
    """Name of a symbol in icons.svg."""
    picture: str
    """`data:image/…` of the blueprint in place of the symbol. Pages load nothing from elsewhere, so an icon
    of another host is not shown."""
    note: str
    """A few words below the title."""


class Apps(Protocol):
    """The apps that users may open; `web.places` has them."""

    def of(self, actor: str) -> Sequence[Opened]:
        """Return the apps of all workspaces of a user, whether or not they exist yet."""

    def shared_with(self, user: User) -> Sequence[Opened]:
        """Return apps of other users that a user may open, by owner."""


class Tiles:
    """The apps of one process as pages show them; never waits."""

    def __init__(
        self, apps: Apps, catalog: Catalog, origins: Origins, missing: frozenset[str] = frozenset()
    ) -> None:
        """Create it; `missing` are slugs of Fairlead's own apps that lack a part.

        The page of such an app tells how to add that part.
        """
        self._apps = apps
        self._catalog = catalog
        self._origins = origins
        self._missing = missing

    def by_workspace(self, user: User) -> dict[UserString, list[Tile]]:
        """Return the apps of a user by workspace."""
        found: dict[UserString, list[Tile]] = {}
        for opened in self._apps.of(user.name):
            found.setdefault(opened.workspace, []).append(self._tile(opened, _note(opened.share)))
        return found

    def shared_with(self, user: User) -> list[Tile]:
        """Return the apps of others, by owner."""
        return [
            self._tile(one, f"{one.owner} · {one.workspace.blueprint}")
            for one in self._apps.shared_with(user)
        ]

    def _tile(self, opened: Opened, note: str) -> Tile:
        slug = opened.slug
        definition = self._catalog.current().definitions.get(opened.workspace.blueprint)
        app = None if definition is None else definition.sample.apps.get(slug)
        icon = "" if app is None else app.icon
        is_picture = icon.startswith("data:image/")
        return Tile(
            opened.title,
            f"{self._origins.origin(opened.label)}/",
            icon if icon in ICONS else icon_of(slug),
            icon if is_picture else "",
            "not installed yet" if slug in self._missing else note,
        )


def _note(share: Share) -> str:
    """Return in a word which users besides its owner may open an app."""
    if share == OWNER_ONLY:
        return ""
    return "public" if share.is_public else "shared"


def icon_of(slug: str) -> str:
    """Return the icon that fits a slug."""
    parts = slug.split("-")
    for icon, words in _ICONS.items():
        if any(part.rstrip("0123456789") in words for part in parts):
            return icon
    return "app"
