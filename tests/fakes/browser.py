"""As much of a browser as our pages need: cookies, redirects, forms, and the Origin header."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import aiohttp

from proxy.http.client import LocalhostResolver


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
        elif tag == "input" and self.forms and given.get("name"):
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "button" and self.forms:
            self.forms[-1].buttons.append(given.get("value", ""))

    def handle_data(self, data: str) -> None:
        self.text += data


@dataclass(frozen=True)
class Page:
    url: str
    status: int
    html: str
    headers: dict[str, str]
    text: str
    forms: list[Form]


class Browser:
    """`async with Browser() as browser`; follows redirects as a browser does, and keeps what it saw."""

    def __init__(self, connector: aiohttp.TCPConnector | None = None, **headers: str) -> None:
        """`headers` go with every request; `connector` may know other names than this machine."""
        self._headers = headers
        self._connector = connector

    async def __aenter__(self) -> "Browser":
        self.visited: list[str] = []
        self._session = aiohttp.ClientSession(
            connector=self._connector or aiohttp.TCPConnector(resolver=LocalhostResolver(), limit=0),
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self._session.cookie_jar}

    async def get(self, url: str, **headers: str) -> Page:
        return await self._go("GET", url, None, headers)

    async def post(
        self, url: str, data: dict[str, str], origin: str | None = "", *, follow: bool = True, **headers: str
    ) -> Page:
        """Send a form; `origin` is the page's own unless given, None leaves the header out."""
        parts = urlsplit(url)
        if origin is not None:
            headers["Origin"] = origin or f"{parts.scheme}://{parts.netloc}"
        return await self._go("POST", url, data, headers, follow=follow)

    async def submit(self, page: Page, decision: str, *, follow: bool = True, **fields: str) -> Page:
        """Press a button of the first form; without `follow` a redirect is what is given back."""
        form = page.forms[0]
        data = {**form.fields, **fields} | ({"decision": decision} if decision else {})
        return await self.post(urljoin(page.url, form.action), data, follow=follow)

    async def _go(
        self,
        method: str,
        url: str,
        data: dict[str, str] | None,
        headers: dict[str, str],
        *,
        follow: bool = True,
    ) -> Page:
        for _ in range(10):
            self.visited.append(url)
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as response:
                html = await response.text()
                if follow and response.status in (301, 302, 303, 307) and "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    method, data = ("GET", None) if response.status in (301, 302, 303) else (method, data)
                    headers = {}
                    continue
                if follow and (onward := response.headers.get("Refresh", "").partition("url=")[2]):
                    url, method, data, headers = urljoin(url, onward), "GET", None, {}
                    continue
                parser = _Parser()
                parser.feed(html)
                return Page(url, response.status, html, dict(response.headers), parser.text, parser.forms)
        raise AssertionError("redirects without end")
