"""A Fairlead that lacks the rule named in the file WEAKENED: shows that an attack is stopped by that rule."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.__main__ import main
from proxy.http.site import Site
from proxy.web import heads, login_gate
from proxy.web.portal import forms

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


if __name__ == "__main__":
    weaken(login_gate, "is_own_request", "own-request", lambda *_: True)
    weaken(heads, "without_ours", "stripping", lambda _, value: value)
    weaken(Site, "page_headers", "framing", framed)
    weaken(Site, "check_origin", "forms", lambda *_: None)
    weaken(Site, "check_csrf", "forms", lambda *_: None)
    weaken(forms, "check_same_origin", "forms", lambda *_: None)
    main()
