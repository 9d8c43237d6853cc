"""Whose provider is asked, how often, and what stands in when it does not answer."""

import asyncio
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.blueprints.schema import Blueprint, InitScript
from proxy.errors.blueprints import BlueprintInvalid, BlueprintNotFound, RepositoryUnreachable
from proxy.errors.programs import Refused
from proxy.model import User
from proxy.settings.blueprints import RepositorySettings
from proxy.userstring import UserString, parse, workspace_name
from proxy.workspaces.repositories import CLONE_SCRIPT, MAX_KEPT, Repositories, with_clone
from tests.unit.proxy.blueprints.reading import read
from tests.wire.harness import needs

ALICE = User("alice", provider="github", groups=("Acme/dev",))
SET = read(
    base="abstract: true\nenv: {WHERE: !cel workspace.name}",
    gpu="access: {groups: [ml]}",
    plain="description: without a file",
)


class Files:
    """Answers from a dictionary, and counts."""

    def __init__(self, answer: bytes | Exception | None = b"") -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str, bool]] = []
        self.gate: asyncio.Event | None = None
        self.providers: Sequence[str] = ["github", "gitlab"]

    def clone_url(self, provider: str, repo: str) -> str:
        return f"https://{provider}.example/{repo}.git"

    async def read(self, provider: str, repo: str, ref: str, path: str, *, private: bool) -> bytes | None:
        self.asked.append((provider, repo, ref, private))
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def repositories(files: Files, clock: Clock | None = None, **settings: object) -> Repositories:
    given = {"base": "base", "templates": ["gpu"], **settings}
    return Repositories(RepositorySettings.model_validate(given), files, clock=clock or Clock())


async def resolved(files: Files, who: str = "alice+repo=acme/shop", user: User = ALICE) -> Blueprint:
    return await repositories(files).blueprint(SET, user, parse(who))


async def test_a_file_is_laid_over_the_base() -> None:
    blueprint = await resolved(Files(b"description: the shop\nenv: {CI: 'true'}"))
    assert (blueprint.name, blueprint.description) == ("base", "the shop")
    assert blueprint.env["CI"] == "true"
    value = parse("alice+repo=acme/shop")
    assert blueprint.env["WHERE"] == workspace_name(value, "base")
    assert (blueprint.env["FAIRLEAD_REPO"], blueprint.env["FAIRLEAD_REF"]) == ("acme/shop", "")


@pytest.mark.parametrize(
    ("user", "who", "asked"),
    [
        (ALICE, "alice+repo=acme/shop", ("github", "acme/shop", "", True)),
        (ALICE, "alice+repo=other/shop+ref=v1", ("github", "other/shop", "v1", False)),
        (ALICE, "alice+repo=mine", ("github", "alice/mine", "", False)),
        (replace(ALICE, provider="gitlab"), "alice+repo=o/p", ("gitlab", "o/p", "", False)),
    ],
)
async def test_the_person_s_own_provider_is_asked(
    user: User, who: str, asked: tuple[str, str, str, bool]
) -> None:
    files = Files()
    await resolved(files, who, user)
    assert files.asked == [asked]


async def test_people_of_no_forge_have_no_repositories_but_by_the_settings() -> None:
    files, root = Files(), User("root")
    with pytest.raises(Refused, match="for people who came in by GitHub or GitLab; log in as root without"):
        await resolved(files, "root+repo=o/p", root)
    await repositories(files, provider="gitlab").blueprint(SET, root, parse("root+repo=o/p"))
    assert files.asked[0][0] == "gitlab"


async def test_without_a_file_the_default_serves_or_a_sentence() -> None:
    files, value = Files(None), parse("alice+repo=o/p+ref=v1")
    with pytest.raises(BlueprintNotFound, match=r"repository o/p has no \.fairlead\.yaml at v1; add one"):
        await repositories(files).blueprint(SET, ALICE, value)
    blueprint = await repositories(files, default="plain").blueprint(SET, ALICE, value)
    assert blueprint.description == "without a file"


async def test_a_broken_file_is_told_to_whoever_asked() -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        await resolved(Files(b"sudo: true"))
    assert caught.value.user_message == (
        "acme/shop/.fairlead.yaml:1: sudo: this is not for a repository to set"
    )


async def test_a_template_is_chosen_among_those_offered_and_of_this_person() -> None:
    files = Files(b"template: gpu")
    with pytest.raises(BlueprintNotFound):
        await resolved(files)
    assert (await resolved(files, user=replace(ALICE, groups=("ml",)))).name == "gpu"


async def test_every_channel_asks_and_the_forge_is_asked_once() -> None:
    files, clock = Files(), Clock()
    files.gate = asyncio.Event()
    these = repositories(files, clock)
    value = parse("alice+repo=o/p")
    waiting = [asyncio.ensure_future(these.blueprint(SET, ALICE, value)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()  # one that goes takes nobody along
    files.gate.set()
    await asyncio.gather(*waiting)
    await these.blueprint(SET, ALICE, value)
    assert len(files.asked) == 1
    clock.now += 301
    await these.blueprint(SET, ALICE, value)
    assert len(files.asked) == 2
    await these.close()


async def test_the_last_file_serves_while_the_forge_does_not_answer() -> None:
    files, clock = Files(b"description: old"), Clock()
    these, value = repositories(files, clock), parse("alice+repo=o/p")
    await these.blueprint(SET, ALICE, value)
    clock.now += 301
    files.answer = RepositoryUnreachable("down")
    assert (await these.blueprint(SET, ALICE, value)).description == "old"
    with pytest.raises(RepositoryUnreachable):
        await these.blueprint(SET, ALICE, parse("alice+repo=o/other"))
    files.answer = BlueprintNotFound("no such repository")
    with pytest.raises(BlueprintNotFound):
        await these.blueprint(SET, ALICE, value)
    await these.close()


async def test_a_forge_that_hangs_is_given_up() -> None:
    files = Files()
    files.gate = asyncio.Event()
    these = repositories(files, timeout_s=0.01)
    with pytest.raises(RepositoryUnreachable, match=r"not read within 0\.01 s"):
        await these.blueprint(SET, ALICE, parse("alice+repo=o/p"))
    await these.close()


async def test_no_more_files_are_kept_than_that() -> None:
    files = Files()
    these = repositories(files)
    for number in range(MAX_KEPT + 1):
        await these.blueprint(SET, ALICE, parse(f"alice+repo=o/p{number}"))
    await these.blueprint(SET, ALICE, parse("alice+repo=o/p1"))
    assert len(files.asked) == MAX_KEPT + 1
    await these.blueprint(SET, ALICE, parse("alice+repo=o/p0"))
    assert len(files.asked) == MAX_KEPT + 2


def run_clone(home: Path, url: str, ref: str = "", name: str = "shop") -> subprocess.CompletedProcess[bytes]:
    home.mkdir(exist_ok=True)
    origin = UserString("alice", repo=f"acme/{name}", ref=ref)
    script = with_clone(Blueprint(name="dev"), origin, url).init[0]
    environ = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run(["sh", "-c", script.script], env=environ, capture_output=True, timeout=60)


@needs("git")
def test_the_repository_is_cloned_once_at_its_ref(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    git = ["git", "-C", str(origin), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(origin)], check=True)
    (origin / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run([*git, "tag", "v1"], check=True)
    (origin / "file").write_text("two")
    subprocess.run([*git, "commit", "-qam", "two"], check=True)
    done = run_clone(tmp_path / "a", f"file://{origin}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "a" / "shop" / "file").read_text() == "two"
    assert run_clone(tmp_path / "b", f"file://{origin}", ref="v1").returncode == 0
    assert (tmp_path / "b" / "shop" / "file").read_text() == "one"
    (tmp_path / "a" / "shop" / "file").write_text("mine")
    assert run_clone(tmp_path / "a", f"file://{origin}").returncode == 0
    assert (tmp_path / "a" / "shop" / "file").read_text() == "mine"


@needs("git")
def test_words_of_the_user_string_are_no_words_of_the_shell(tmp_path: Path) -> None:
    run_clone(tmp_path / "home", f"file://{tmp_path}/$(touch ran)", ref="';touch ran;'")
    assert not list(tmp_path.rglob("ran"))


def test_a_blueprint_may_clone_in_its_own_way() -> None:
    own = InitScript(name=CLONE_SCRIPT, script="mine")
    blueprint = with_clone(
        Blueprint(name="dev", init=(own,)), UserString("a", repo="o/p"), "https://x/o/p.git"
    )
    assert blueprint.init == (own,)
