"""The user string: the text before `@`.

    user-string = user [ ("+" / "~") spec ]
    spec        = blueprint *( "+" param )  /  param *( "+" param )
    param       = key "=" value
    key         = "repo" / "ref" / "pod" / "user" / "ns" / "workload"      ; case-insensitive
    wrapped     = ( "b64-" / "base64-" ) base64url-without-padding         ; once, around the whole

Values and blueprint names are percent-decoded and keep their case, since git refs are case-sensitive;
user names and keys are lower-cased. `~` is a separator only as the first one, so that strings of
k8shell work unchanged. At most 128 characters after unwrapping.

Four forms: implicit (`alice`), explicit (`alice+dev`), named (`alice+pod=ws1`, never provisions) and
repo (`alice+repo=org/proj+ref=main`). `workload` and `ns` go together; `pod` excludes `repo`, `ref` and
`workload`; `ref` needs `repo`. Pure: takes text, returns a value or raises UserStringInvalid.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn
from urllib.parse import quote, unquote_to_bytes

from proxy.errors.login import UserStringInvalid

MAX_CHARACTERS = 128
MAX_WRAPPED_CHARACTERS = 7 + (MAX_CHARACTERS * 4 * 4 + 2) // 3  # prefix, and base64 of four-byte characters

KEYS = ("repo", "ref", "pod", "user", "ns", "workload")

_USER = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_REPO = re.compile(r"(?!-)[\w.-]+(?:/(?!-)[\w.-]+)*", re.ASCII)
_WRAPPED = re.compile(r"(?:b64|base64)-", re.IGNORECASE)
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WORKLOAD_KINDS = ("deployment", "statefulset", "daemonset")


class Form(Enum):
    """The kinds of workspace addresses in a user string."""

    IMPLICIT = "implicit"
    EXPLICIT = "explicit"
    NAMED = "named"
    REPO = "repo"


@dataclass(frozen=True, slots=True)
class UserString:
    """A parsed user string; empty strings are parts that were not given."""

    user: str
    blueprint: str = ""
    repo: str = ""
    """`owner/name`; the owner defaults to the user."""
    ref: str = ""
    pod: str = ""
    account: str = ""
    """The OS account requested with `user=`."""
    ns: str = ""
    workload: str = ""
    """`kind/name`."""

    @property
    def form(self) -> Form:
        """Return the form of this user string."""
        if self.pod:
            return Form.NAMED
        if self.repo:
            return Form.REPO
        return Form.EXPLICIT if self.blueprint else Form.IMPLICIT


def parse(text: str) -> UserString:
    """Parse a user string as typed.

    Raises: UserStringInvalid with the position, counted in the unwrapped text, of the first problem.
    """
    return _Parser(_unwrap(text)).parse()


def format_user_string(value: UserString) -> str:
    """Format `value` so that `parse` returns it again; parameters in the order of KEYS.

    The result is never longer than the parsed text, so it never exceeds the limit.
    """
    head = [_encode(value.blueprint)] if value.blueprint else []
    given = {key: getattr(value, "account" if key == "user" else key) for key in KEYS}
    own, _, name = given["repo"].partition("/")
    if own == value.user and name and "/" not in name:
        given["repo"] = name
    params = [f"{key}={_encode(text)}" for key, text in given.items() if text]
    text = "+".join([value.user, *head, *params])
    return wrap(text) if _WRAPPED.match(text) else text


def _encode(text: str) -> str:
    return re.sub("[%+=]", lambda found: f"%{ord(found[0]):02X}", text)


def wrap(text: str) -> str:
    """Encode a user string for clients that cannot carry `+`, `=` or `/` in a user name."""
    return "b64-" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def canonical_key(value: UserString, blueprint: str) -> str:
    """Return the key that identifies the workspace of a login; `blueprint` is the one in effect.

    It leaves the account out: one workspace serves all of its accounts.
    """
    parts = {
        "u": value.user,
        "bp": blueprint,
        "repo": value.repo,
        "ref": value.ref,
        "wl": value.workload,
        "ns": value.ns,
    }
    # Percent-coding keeps "|" and "=" of a value from imitating another field.
    return "|".join(f"{key}={quote(text, safe='/')}" for key, text in parts.items() if text)


def workspace_name(value: UserString, blueprint: str, owner: str = "") -> str:
    """Derive the workspace's name: a DNS label (RFC 1123) of at most 51 characters.

    Distinct canonical keys give distinct names but for a collision of 40 bits of SHA-256 within one user. The
    named form is its own name. `owner` distinguishes this user from an earlier one of that name, whose
    workspaces have names without it.
    """
    if value.pod:
        return value.pod
    label = re.sub(r"[^a-z0-9-]", "-", value.user)[:40].strip("-") or "user"
    key = canonical_key(value, blueprint) + (f"|id={quote(owner, safe='')}" if owner else "")
    return f"{label}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


def _unwrap(text: str) -> str:
    if (prefix := _WRAPPED.match(text)) is None:
        return text
    # Checked before decoding, so that no client makes the proxy decode a megabyte.
    if len(text) > MAX_WRAPPED_CHARACTERS:
        shown = text[:MAX_WRAPPED_CHARACTERS]
        raise UserStringInvalid("too long", text=shown, position=len(shown))
    body = text[prefix.end() :]
    if bad := re.search(r"[^A-Za-z0-9_-]", body):
        raise UserStringInvalid("not base64url", text=text, position=prefix.end() + bad.start())
    try:
        return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise UserStringInvalid("base64 does not hold UTF-8 text", text=text, position=prefix.end()) from None


class _Parser:
    """One pass over the text; `_fail` knows the position."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _fail(self, reason: str, position: int) -> NoReturn:
        raise UserStringInvalid(reason, text=self._text[:MAX_CHARACTERS], position=position)

    def parse(self) -> UserString:
        text = self._text
        if len(text) > MAX_CHARACTERS:
            self._fail(f"longer than {MAX_CHARACTERS} characters", MAX_CHARACTERS)
        for position, character in enumerate(text):
            if not character.isprintable() or character.isspace():
                advice = _of_an_address(text) if character == " " else ""
                self._fail(f"blanks and control characters are not allowed{advice}", position)
        cut = min((at for at in (text.find("+"), text.find("~")) if at >= 0), default=len(text))
        user = self._user(text[:cut])
        if cut == len(text):
            return UserString(user=user)
        return self._spec(user, cut + 1)

    def _user(self, text: str) -> str:
        if not text:
            self._fail("the user name is missing", 0)
        # Before lower-casing, which turns letters of other alphabets (the Kelvin sign) into ASCII.
        if (matched := _USER.match(text)) is None or matched.end() != len(text):
            self._fail(
                "a user name has letters, digits and '_', and inside also '.' and '-'",
                matched.end() if matched else 0,
            )
        return text.lower()

    def _spec(self, user: str, start: int) -> UserString:
        found: dict[str, tuple[str, int]] = {}
        blueprint = ""
        position = start
        for index, segment in enumerate(self._text[start:].split("+")):
            if not segment:
                self._fail("something is missing here", position)
            if "=" in segment:
                self._param(segment, position, found)
            elif index == 0:
                blueprint = self._decode(segment, position)
            else:
                self._fail("expected key=value", position)
            position += len(segment) + 1
        self._cross_check(blueprint, found, start)
        values = {("account" if key == "user" else key): value for key, (value, _) in found.items()}
        if (repo := values.get("repo")) and "/" not in repo:
            values["repo"] = f"{user}/{repo}"
        return UserString(user=user, blueprint=blueprint, **values)

    def _param(self, segment: str, position: int, found: dict[str, tuple[str, int]]) -> None:
        raw_key, _, raw_value = segment.partition("=")
        key, at = raw_key.lower(), position + len(raw_key) + 1
        if key not in KEYS:
            self._fail(f"unknown key {raw_key!r}; known are {', '.join(KEYS)}", position)
        if key in found:
            self._fail(f"{key} is given twice", position)
        if not raw_value:
            self._fail(f"{key} has no value", at)
        if "=" in raw_value:
            self._fail("a second '='; write %3D inside a value", at + raw_value.index("="))
        found[key] = (self._checked(key, self._decode(raw_value, at), at), at)

    def _checked(self, key: str, value: str, at: int) -> str:
        match key:
            case "repo" if not _REPO.fullmatch(value) or {".", ".."} & set(value.split("/")):
                self._fail("repo is owner/name or name", at)
            case "ref" if value.startswith("-") or ".." in value:
                self._fail("ref is a git branch, tag or commit", at)
            case "workload":
                kind, _, name = value.partition("/")
                if kind.lower() not in _WORKLOAD_KINDS or not _is_dns_name(name):
                    self._fail(f"workload is kind/name with a kind of {', '.join(_WORKLOAD_KINDS)}", at)
                return f"{kind.lower()}/{name}"
            case "pod" if not _is_dns_name(value):
                self._fail("pod is a DNS name: lower-case letters, digits, '-' and '.'", at)
            case "ns" if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", value):
                self._fail("ns is a DNS label: lower-case letters, digits and '-'", at)
            case "user" if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", value):
                self._fail("user is an account name", at)
        return value

    def _decode(self, raw: str, position: int) -> str:
        if bad := _PERCENT.search(raw):
            self._fail(
                "'%' needs two hexadecimal digits; write %25 for the sign itself", position + bad.start()
            )
        try:
            text = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            self._fail("percent-coding does not give UTF-8 text", position)
        if not text.isprintable() or any(character.isspace() for character in text):
            self._fail("blanks and control characters are not allowed", position)
        return text

    def _cross_check(self, blueprint: str, found: dict[str, tuple[str, int]], start: int) -> None:
        def at(key: str) -> int:
            return found[key][1]

        if "pod" in found:
            for other in ("repo", "ref", "workload"):
                if other in found:
                    self._fail(f"pod and {other} exclude each other", at(other))
            if blueprint:
                self._fail("a blueprint and pod exclude each other", start)
        elif ("ns" in found) != ("workload" in found):
            missing, given = ("workload", "ns") if "ns" in found else ("ns", "workload")
            self._fail(f"{given} needs {missing}", at(given))
        if "repo" in found and blueprint:
            self._fail("a blueprint and repo exclude each other", start)
        if "ref" in found and "repo" not in found:
            self._fail("ref needs repo", at("ref"))


def _of_an_address(text: str) -> str:
    """Return the text that replaces the `+` of an ssh:// address, where OpenSSH sends a blank.

    "" if there is none.
    """
    try:
        parse(text.replace(" ", "+"))
    except UserStringInvalid:
        return ""
    return (
        "; a '+' in an ssh:// address becomes a blank: write %2B for each, '~' for the first, "
        f"or the whole as {wrap(text.replace(' ', '+'))}"
    )


def _is_dns_name(text: str) -> bool:
    return len(text) <= 253 and re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", text) is not None
