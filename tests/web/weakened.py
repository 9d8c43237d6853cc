"""A Fairlead that lacks the rule named in the file WEAKENED: shows that an attack is stopped by that rule."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.__main__ import main
from proxy.blueprints.sharing import Share
from proxy.http.cookies import CookieNames
from proxy.http.site import Site
from proxy.web import gate, heads, login_gate
from proxy.web.interstitial import Interstitial
from proxy.web.portal import forms
from proxy.web.seals import Seals

_FILE = Path(os.environ["WEAKENED"])


def weaken(place: Any, name: str, rule: str, without: Callable[..., Any]) -> None:
    """Call `without` with the original in place of a function, as long as its rule is the one that lacks."""
    original = getattr(place, name)

    def chosen(*args: Any, **kwargs: Any) -> Any:
        if _FILE.read_text() == rule:
            return without(original, *args, **kwargs)
        return original(*args, **kwargs)

    setattr(place, name, chosen)


def framed(page_headers: Callable[..., dict[str, str]], *args: Any) -> dict[str, str]:
    """Make headers of a page that may be framed."""
    headers = page_headers(*args)
    del headers["X-Frame-Options"]
    policy = headers["Content-Security-Policy"]
    return {**headers, "Content-Security-Policy": policy.replace("frame-ancestors 'none'; ", "")}


class AnyLeaving:
    """A sign-in without its binding to a browser: it ends with the cookie of the browser that left last."""

    def __init__(self) -> None:
        self._left = ""

    def issue(self, original: Callable[..., str], seals: Seals, purpose: str) -> str:
        """Note the values that browsers get when they leave an app's origin."""
        value = original(seals, purpose)
        if purpose.startswith("pre:"):
            self._left = value
        return value

    def value(self, original: Callable[..., str], *args: Any) -> str:
        """Give the noted value to a browser that brings none."""
        return original(*args) or (self._left if len(args) > 2 else "")


def reserved(original: Callable[[gate.Asked], bool], asked: gate.Asked) -> bool:
    """Let an app answer below our paths, but for the one that sign-ins need."""
    return original(asked) and asked.request.target.startswith(login_gate.REDEEM)


if __name__ == "__main__":
    leaving = AnyLeaving()
    weaken(Seals, "issue", "binding", leaving.issue)
    weaken(CookieNames, "value", "binding", leaving.value)
    weaken(heads, "set_by_app", "cookies-of-apps", lambda _, value: value)
    # The table holds the function itself, and knows nothing of what takes its place in the module.
    heads.ANSWER = {**heads.ANSWER, b"set-cookie": heads.Rule(heads.set_by_app)}
    asked: Any = gate.Asked
    asked.asks_for_ours = asked.is_reserved.fget
    weaken(asked, "asks_for_ours", "reserved", reserved)
    asked.is_reserved = property(asked.asks_for_ours)
    weaken(login_gate, "is_own_request", "own-request", lambda *_: True)
    weaken(heads, "without_ours", "stripping", lambda _, value: value)
    weaken(Site, "page_headers", "framing", framed)
    weaken(Site, "check_origin", "forms", lambda *_: None)
    weaken(Site, "check_csrf", "forms", lambda *_: None)
    weaken(forms, "check_same_origin", "forms", lambda *_: None)
    weaken(Share, "admits", "shares", lambda *_: True)
    weaken(Interstitial, "was_passed", "interstitial", lambda *_: True)
    main()
