"""HTML of the portal, by templates that escape every value, and the files that pages load from here.

Nothing on a page is inline and nothing comes from elsewhere, so the Content-Security-Policy allows this
origin only. Files have their digest in the address and never change.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from proxy.web.portal.words import clock, day, moment, since, until

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
ASSETS = "/assets/"
_TYPES = {
    "portal.css": "text/css",
    "portal.js": "text/javascript",
    "icons.svg": "image/svg+xml",
    "mark.svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file that pages load."""

    path: str
    """On this origin."""
    body: bytes
    content_type: str


def read_assets() -> dict[str, Asset]:
    """Return the files by name."""
    found = {}
    for name, kind in _TYPES.items():
        body = resources.files("proxy.web.portal").joinpath("assets", name).read_bytes()
        digest = hashlib.sha256(body).hexdigest()[:16]
        found[name] = Asset(f"{ASSETS}{digest}/{name}", body, kind)
    return found


class Renderer:
    """The templates of one process."""

    def __init__(self) -> None:
        self.assets = read_assets()
        self._environment = Environment(
            loader=PackageLoader("proxy.web.portal"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["asset"] = {name: one.path for name, one in self.assets.items()}
        self._environment.filters |= {
            "clock": clock,
            "day": day,
            "moment": moment,
            "since": lambda at: since(at, datetime.now(UTC)),
            "until": lambda at: until(at, datetime.now(UTC)),
        }

    def page(self, template: str, values: Mapping[str, Any]) -> str:
        """Return the page of a template; every name that it uses has to be among the values."""
        return self._environment.get_template(template).render(values)
