import base64
import re

import pytest

from proxy import userstring
from proxy.errors.login import UserStringInvalid
from proxy.userstring import Form, UserString, canonical_key, format_user_string, parse, workspace_name, wrap


@pytest.mark.parametrize(
    ("text", "value", "form"),
    [
        ("alice", UserString("alice"), Form.IMPLICIT),
        ("Alice", UserString("alice"), Form.IMPLICIT),
        ("a.b_c-", UserString("a.b_c-"), Form.IMPLICIT),
        ("_svc", UserString("_svc"), Form.IMPLICIT),
        ("alice+dev", UserString("alice", blueprint="dev"), Form.EXPLICIT),
        ("alice~dev", UserString("alice", blueprint="dev"), Form.EXPLICIT),
        ("alice+Dev", UserString("alice", blueprint="Dev"), Form.EXPLICIT),
        ("alice~a~b", UserString("alice", blueprint="a~b"), Form.EXPLICIT),
        ("alice+a~b", UserString("alice", blueprint="a~b"), Form.EXPLICIT),
        ("alice+dev+user=root", UserString("alice", blueprint="dev", account="root"), Form.EXPLICIT),
        ("alice+user=root", UserString("alice", account="root"), Form.IMPLICIT),
        ("alice+pod=ws-1.x", UserString("alice", pod="ws-1.x"), Form.NAMED),
        ("alice+pod=ws+user=root", UserString("alice", pod="ws", account="root"), Form.NAMED),
        ("alice+repo=Org/Proj", UserString("alice", repo="Org/Proj"), Form.REPO),
        ("alice+REPO=proj", UserString("alice", repo="alice/proj"), Form.REPO),
        ("alice+repo=a/b/c", UserString("alice", repo="a/b/c"), Form.REPO),
        ("alice+repo=o/p+ref=Fix/A", UserString("alice", repo="o/p", ref="Fix/A"), Form.REPO),
        ("alice+ref=x+repo=o/p", UserString("alice", repo="o/p", ref="x"), Form.REPO),
        ("alice+repo=o/p+ref=a%2Bb%3D%7e%40", UserString("alice", repo="o/p", ref="a+b=~@"), Form.REPO),
        ("alice+repo=o/p+ref=%C3%A9", UserString("alice", repo="o/p", ref="é"), Form.REPO),
        (
            "alice+workload=Deployment/web+ns=shop",
            UserString("alice", workload="deployment/web", ns="shop"),
            Form.IMPLICIT,
        ),
    ],
)
def test_reads_every_form(text: str, value: UserString, form: Form) -> None:
    assert parse(text) == value
    assert parse(text).form is form
    assert parse(format_user_string(value)) == value


@pytest.mark.parametrize("prefix", ["b64-", "base64-", "B64-", "Base64-"])
def test_a_wrapped_string_is_read_once(prefix: str) -> None:
    body = base64.urlsafe_b64encode(b"alice+repo=o/p+ref=x").decode().rstrip("=")
    assert parse(prefix + body) == UserString("alice", repo="o/p", ref="x")


def test_what_is_wrapped_twice_is_an_ordinary_name() -> None:
    assert parse(wrap("b64-eA")) == UserString("b64-ea")


def test_a_user_who_looks_wrapped_is_written_wrapped() -> None:
    """`b64-x+dev` would be read as base64 when it is typed as it is."""
    value = UserString("b64-x", blueprint="dev")
    assert format_user_string(value).startswith("b64-")
    assert parse(format_user_string(value)) == value


def test_what_is_written_is_never_longer_than_what_was_read() -> None:
    """A value of 120 accented letters, percent-coded, would be too long to be read again."""
    text = "a+repo=" + "p" * 60 + "+ref=" + "é" * 55
    assert len(format_user_string(parse(text))) <= len(text)
    assert parse(format_user_string(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "the user name is missing"),
        ("+dev", 0, "the user name is missing"),
        ("b64-", 0, "the user name is missing"),
        (".alice", 0, "inside also"),
        ("-alice", 0, "inside also"),
        ("alice.", 5, "inside also"),
        ("al@ice", 2, "inside also"),
        ("al\u212aice", 2, "inside also"),  # the Kelvin sign, whose lower case is "k"
        ("ali ce", 3, "blanks and control"),
        ("alice\n", 5, "blanks and control"),
        ("alice\x00+dev", 5, "blanks and control"),
        ("alice+", 6, "something is missing"),
        ("alice++dev", 6, "something is missing"),
        ("alice+dev+", 10, "something is missing"),
        ("alice+dev+more", 10, "expected key=value"),
        ("alice+dev+who=me", 10, "unknown key 'who'"),
        ("alice+=x", 6, "unknown key ''"),
        ("alice+pod=a+pod=b", 12, "pod is given twice"),
        ("alice+pod=a+POD=b", 12, "pod is given twice"),
        ("alice+pod=", 10, "pod has no value"),
        ("alice+repo=a/b+ref=x=y", 20, "a second '='"),
        ("alice+repo=a/b+ref=100%", 22, "two hexadecimal digits"),
        ("alice+repo=a/b+ref=%zz", 19, "two hexadecimal digits"),
        ("alice+repo=a/b+ref=%ff", 19, "does not give UTF-8"),
        ("alice+repo=a/b+ref=a%20b", 19, "blanks and control"),
        ("alice+repo=a/b+ref=a%00b", 19, "blanks and control"),
        ("alice+repo=a/b+ref=-x", 19, "ref is a git"),
        ("alice+repo=a/b+ref=a..b", 19, "ref is a git"),
        ("alice+repo=/a", 11, "repo is owner/name"),
        ("alice+repo=a//b", 11, "repo is owner/name"),
        ("alice+repo=a/..", 11, "repo is owner/name"),
        ("alice+repo=./b", 11, "repo is owner/name"),
        ("alice+repo=-o/b", 11, "repo is owner/name"),
        ("alice+repo=a/b%0a", 11, "blanks and control"),
        ("alice+pod=UP", 10, "pod is a DNS name"),
        ("alice+pod=../etc", 10, "pod is a DNS name"),
        ("alice+pod=a%2Fb", 10, "pod is a DNS name"),
        ("alice+user=0", 11, "user is an account"),
        ("alice+user=" + "a" * 33, 11, "user is an account"),
        ("alice+workload=pod/x+ns=n", 15, "workload is kind/name"),
        ("alice+workload=deployment/x+ns=N", 31, "ns is a DNS label"),
        ("alice+workload=deployment/x", 15, "workload needs ns"),
        ("alice+ns=n", 9, "ns needs workload"),
        ("alice+ref=main", 10, "ref needs repo"),
        ("alice+dev+pod=a", 6, "a blueprint and pod"),
        ("alice+dev+repo=a/b", 6, "a blueprint and repo"),
        ("alice+pod=a+repo=b", 17, "pod and repo"),
        ("alice+pod=a+workload=deployment/x+ns=n", 21, "pod and workload"),
        ("a" * 129, 128, "longer than 128"),
        ("b64-a*b", 5, "not base64url"),
        ("b64-a+dev", 5, "not base64url"),
        ("b64-a", 4, "does not hold UTF-8"),
        ("b64-_w", 4, "does not hold UTF-8"),
    ],
)
def test_an_error_says_what_and_where(text: str, position: int, reason: str) -> None:
    with pytest.raises(UserStringInvalid) as caught:
        parse(text)
    assert reason in caught.value.reason
    assert caught.value.position == position
    assert f"at character {position + 1}" in str(caught.value)


@pytest.mark.parametrize("text", ["root dev", "alice repo=acme/web ref=main"])
def test_a_plus_that_became_a_blank_is_told_with_three_ways_to_write_it(text: str) -> None:
    """OpenSSH decodes ssh:// addresses as web forms are: `+` is a blank there."""
    with pytest.raises(UserStringInvalid) as caught:
        parse(text)
    found = re.fullmatch(
        r".*: write (%2B) for each, ('~') for the first, or the whole as (\S+)", caught.value.reason
    )
    assert found
    assert parse(found[3]) == parse(text.replace(" ", "+"))


def test_a_blank_that_was_no_plus_gets_no_advice() -> None:
    with pytest.raises(UserStringInvalid, match=r"not allowed \(at"):
        parse("a b c")


def test_positions_count_in_the_unwrapped_text() -> None:
    with pytest.raises(UserStringInvalid) as caught:
        parse(wrap("alice+dev+who=me"))
    assert (caught.value.text, caught.value.position) == ("alice+dev+who=me", 10)


def test_a_megabyte_is_not_decoded() -> None:
    with pytest.raises(UserStringInvalid) as caught:
        parse("b64-" + "A" * 1_000_000)
    assert caught.value.reason == "too long"
    assert len(str(caught.value)) < 1_000


def test_the_longest_string_fits_wrapped() -> None:
    text = "a+repo=a/b+ref=" + "\U0001f9ed" * (128 - 15)
    assert len(wrap(text)) <= userstring.MAX_WRAPPED_CHARACTERS
    assert parse(wrap(text)).ref == "\U0001f9ed" * 113


def test_a_workspace_is_shared_by_what_means_the_same() -> None:
    def name(text: str, blueprint: str = "dev") -> str:
        return workspace_name(parse(text), blueprint)

    assert name("alice") == name("Alice+dev") == name("alice+dev+user=root") == name("alice~dev")
    assert name("alice+repo=p") == name("alice+repo=alice/p")
    different = [
        name("alice"),
        name("bob"),
        name("alice", "other"),
        name("alice+repo=p"),
        name("alice+repo=p+ref=x"),
        name("alice+repo=p+ref=X"),
        name("alice+workload=deployment/x+ns=n"),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("user", ["alice", "a.b", "_", "a" * 128, "a-" * 40, "--".join("ab"), "x_._y"])
def test_a_workspace_name_is_a_short_dns_label(user: str) -> None:
    name = workspace_name(parse(user), "dev")
    assert re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 51


def test_users_with_one_label_have_two_workspaces() -> None:
    assert workspace_name(parse("a.b"), "dev") != workspace_name(parse("a-b"), "dev")


def test_a_named_workspace_is_called_what_was_typed() -> None:
    assert workspace_name(parse("alice+pod=ws-1"), "dev") == "ws-1"


def test_a_value_cannot_imitate_another_field() -> None:
    forged = UserString("alice", repo="o/p", ref="x|wl=deployment/y")
    assert "|wl=" not in canonical_key(forged, "")
