"""URLs in the settings and in answers of providers: where secrets may be sent, and where our pages stand."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from proxy.addresses import is_localhost_name, is_loopback

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound

PAGE_HOST = "login.localhost"
"""Host name of our pages where browsers reach them on this machine. Cookies ignore ports (RFC 6265 §8.5):
on `localhost` or `127.0.0.1`, every program there would share the jar, those behind `ssh -L` included.
A browser takes every name below `localhost` for loopback by itself (RFC 6761 §6.3)."""


def is_page_here(host: str) -> bool:
    """Tell whether a page that listens on `host` is reached as PAGE_HOST: by 127.0.0.1, ::1 or a wildcard."""
    return host in _WILDCARDS or host in ("127.0.0.1", "::1", "localhost")


def check_url(url: str) -> str:
    """Give back an absolute URL that secrets may be sent to: https, or http on loopback.

    Raises: ValueError naming the URL.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"{url[:200]!r} is not a URL") from None
    if not host or parts.username is not None or parts.fragment or re.search(r"[\x00-\x20\x7f-\xa0\\]", url):
        raise ValueError(f"{url[:200]!r} is not a plain absolute URL")
    is_here = is_loopback(host) or is_localhost_name(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_here):
        raise ValueError(f"{url[:200]!r} must be https (http is for loopback only)")
    return url


def _base_url(url: str) -> str:
    return check_url(url).rstrip("/")


def check_page_url(url: str) -> str:
    """Give back the URL at which browsers reach a page of ours, without a final slash; empty is the default.

    Raises: ValueError naming the URL, also for 127.0.0.1 and `localhost`, where every port has our cookies.
    """
    if not url:
        return ""
    checked = _base_url(url)
    if is_loopback((urlsplit(checked).hostname or "").removesuffix(".")):
        raise ValueError(
            f"{url[:200]!r} shares its cookies with every port of this machine; use a name of its own, "
            f"such as {PAGE_HOST}"
        )
    return checked


def check_peer_url(url: str) -> str:
    """Give back the URL of a page of ours without a final slash: http, as behind a load balancer, or https.

    Raises: ValueError naming the URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(f"{url[:200]!r} is not http://host:port or https://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url[:200]!r} must end with its port")
    return url.rstrip("/")


PeerUrl = Annotated[str, AfterValidator(check_peer_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
PageUrl = Annotated[str, AfterValidator(check_page_url)]
Url = Annotated[str, AfterValidator(check_url)]
