"""A Fairlead that lacks one of its rules, named by WEAKENED: shows that an attack is stopped by that rule."""

import os

from proxy.__main__ import main
from proxy.http.site import Site
from proxy.web import login_gate


def without_own_request() -> None:
    login_gate.is_own_request = lambda request, origin: True


def without_framing() -> None:
    page = Site.page

    def framed(self, *args, **kwargs):
        response = page(self, *args, **kwargs)
        del response.headers["X-Frame-Options"]
        policy = response.headers["Content-Security-Policy"]
        response.headers["Content-Security-Policy"] = policy.replace("frame-ancestors 'none'; ", "")
        return response

    Site.page = framed


def without_forms() -> None:
    Site.check_origin = lambda self, request: None
    Site.check_csrf = lambda self, session, about, token: None


RULES = {"own-request": without_own_request, "framing": without_framing, "forms": without_forms}

if __name__ == "__main__":
    rule = os.environ.get("WEAKENED", "all")
    if rule != "all":
        RULES[rule]()
    main()
