"""Tiles of web apps: those of a user's workspaces, and those that other users share with the user."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proxy.model import User
from proxy.userstring import UserString
from proxy.web.origins import Origins, parse_label
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


class Tile(NamedTuple):
    """One app on a page."""

    title: str
    url: str
    icon: str
    """Name of a symbol in icons.svg."""
    is_public: bool
    owner: str = ""
    """Name of the user whose app it is, where that is another one."""
    blueprint: str = ""


class OwnApps(Protocol):
    """The apps that a user owns; `web.places` has them."""

    def of(self, actor: str) -> list[Opened]:
        """Return the apps of all workspaces of a user, whether or not they exist yet."""


class SharedApps(Protocol):
    """The apps of other users that a user may open."""

    async def shared_with(self, user: User) -> Sequence[Opened]:
        """Return them. Raises: StoreError."""


class NothingShared:
    """SharedApps of an installation without sharing."""

    async def shared_with(self, user: User) -> Sequence[Opened]:
        """Return none."""
        del user
        return ()


class Tiles:
    """The apps of one process as pages show them."""

    def __init__(self, own: OwnApps, shared: SharedApps, origins: Origins) -> None:
        self._own = own
        self._shared = shared
        self._origins = origins

    def by_workspace(self, user: User) -> dict[UserString, list[Tile]]:
        """Return the apps of a user by workspace."""
        found: dict[UserString, list[Tile]] = {}
        for opened in self._own.of(user.name):
            found.setdefault(opened.workspace, []).append(self._tile(opened))
        return found

    async def shared_with(self, user: User) -> list[Tile]:
        """Return the apps of others, by owner. Raises: StoreError."""
        opened = await self._shared.shared_with(user)
        return sorted(
            (
                self._tile(one)._replace(owner=one.workspace.user, blueprint=one.workspace.blueprint)
                for one in opened
            ),
            key=lambda tile: (tile.owner, tile.title),
        )

    def _tile(self, opened: Opened) -> Tile:
        parsed = parse_label(opened.label)
        slug = "" if parsed is None else parsed.app
        url = f"{self._origins.origin(opened.label)}/"
        return Tile(opened.title, url, icon_of(slug), opened.share == "public")


def icon_of(slug: str) -> str:
    """Return the icon that fits a slug."""
    parts = slug.split("-")
    for icon, words in _ICONS.items():
        if any(part.rstrip("0123456789") in words for part in parts):
            return icon
    return "app"
