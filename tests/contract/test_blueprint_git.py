"""Blueprints from a real Git repository: what is read, what is not followed, and what is kept."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog.testing

from proxy.blueprints.follow import Follower, LastGood, first_catalog
from proxy.blueprints.git import GitSource
from proxy.blueprints.sources import MAX_FILE_BYTES
from proxy.errors.blueprints import BlueprintInvalid, BlueprintSourceFailed
from proxy.process.assemble.catalog import open_catalog
from proxy.settings import Settings
from proxy.settings.blueprints import GitSettings
from tests.wire.harness import needs

pytestmark = needs("git")


class Repository:
    """A repository on disk, and the words to change it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return f"file://{self.directory}"

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *identity, *words],
            cwd=self.directory,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        """Write `dev="…"` as dev.yaml, commit everything, and name the commit."""
        for name, text in files.items():
            (self.directory / f"{name}.yaml").write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repository")
    made.commit(dev="description: one")
    return made


@pytest.fixture
def source(repository: Repository) -> Callable[..., GitSource]:
    return lambda **settings: GitSource(GitSettings(url=repository.url, **settings))


async def test_files_of_the_newest_commit_are_read(
    repository: Repository, source: Callable[..., GitSource]
) -> None:
    commit = repository.commit(dev="description: two", base="abstract: true")
    (repository.directory / "dev.yaml").write_text("not committed")
    snapshot = await source().fetch()
    assert snapshot.revision == commit
    assert snapshot.files == {"base.yaml": b"abstract: true", "dev.yaml": b"description: two"}


async def test_an_unchanged_repository_is_not_fetched_again(
    repository: Repository, source: Callable[..., GitSource]
) -> None:
    git = source()
    first = await git.fetch()
    assert await git.fetch() is first
    repository.commit(dev="description: two")
    assert (await git.fetch()).files["dev.yaml"] == b"description: two"


async def test_branches_tags_and_directories_can_be_asked_for(
    repository: Repository, source: Callable[..., GitSource]
) -> None:
    repository.git("tag", "-a", "v1", "-m", "first")
    repository.git("checkout", "--quiet", "-b", "other")
    (repository.directory / "deep" / "er").mkdir(parents=True)
    (repository.directory / "deep" / "er" / "dev.yml").write_text("description: deep")
    repository.commit()
    assert (await source(ref="v1").fetch()).files == {"dev.yaml": b"description: one"}
    assert (await source(ref="main").fetch()).files == {"dev.yaml": b"description: one"}
    deep = await source(ref="other", directory="deep/er/").fetch()
    assert deep.files == {"dev.yml": b"description: deep"}


async def test_what_is_no_plain_file_is_not_followed(
    repository: Repository, source: Callable[..., GitSource]
) -> None:
    (repository.directory / "link.yaml").symlink_to("/etc/passwd")
    (repository.directory / "directory.yaml").mkdir()
    (repository.directory / "directory.yaml" / "x").write_text("x")
    (repository.directory / "big.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (repository.directory / "notes.txt").write_text("x")
    repository.commit()
    snapshot = await source().fetch()
    assert list(snapshot.files) == ["dev.yaml"]
    assert dict(snapshot.unreadable) == {
        "big.yaml": f"larger than {MAX_FILE_BYTES} bytes",
        "directory.yaml": "not a plain file",
        "link.yaml": "not a plain file",
    }


async def test_filters_and_hooks_of_the_repository_have_no_say(
    repository: Repository, source: Callable[..., GitSource], tmp_path: Path
) -> None:
    (repository.directory / ".gitattributes").write_text("*.yaml filter=evil ident\n")
    repository.commit(dev="description: $Id$")
    for hook in ("post-checkout", "reference-transaction"):
        (repository.directory / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (repository.directory / ".git" / "hooks" / hook).chmod(0o755)
    assert (await source().fetch()).files["dev.yaml"] == b"description: $Id$"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ref": "nope"}, "there is no such branch or tag"),
        ({"directory": "nope"}, "git ls-tree: fatal:"),
        ({"timeout_s": 0.001}, r"not read within 0\.001 s"),
    ],
)
async def test_what_cannot_be_read_is_said(
    source: Callable[..., GitSource], settings: dict[str, object], said: str
) -> None:
    with pytest.raises(BlueprintSourceFailed, match=said):
        await source(**settings).fetch()


async def test_a_repository_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(BlueprintSourceFailed, match="git ls-remote: fatal:"):
        await GitSource(GitSettings(url=f"file://{tmp_path}/nowhere")).fetch()


async def test_a_fetch_that_writes_too_much_is_ended(
    repository: Repository, source: Callable[..., GitSource]
) -> None:
    (repository.directory / "more").write_bytes(os.urandom(1_000_000))
    repository.commit()
    with pytest.raises(BlueprintSourceFailed):
        await source(max_bytes=64 * 1024).fetch()


@pytest.mark.parametrize(
    "url",
    ["http://example.com/x", "git://example.com/x", "ext::sh -c id", "-oProxyCommand=id", "/x", "x::y",
     "https://me:secret@example.com/x"],
)  # fmt: skip
def test_unprotected_ways_are_refused_by_the_settings(url: str) -> None:
    with pytest.raises(ValueError, match="url must"):
        GitSettings(url=url)


@pytest.mark.parametrize("url", ["https://h/x", "ssh://git@h/x", "git@h:x/y", "file:///x", ""])
def test_protected_ways_are_accepted(url: str) -> None:
    assert GitSettings(url=url).url == url


async def test_a_broken_commit_leaves_the_last_good_one_in_use(
    repository: Repository, source: Callable[..., GitSource], tmp_path: Path
) -> None:
    git, last_good = source(), LastGood(tmp_path / "kept")
    catalog = await first_catalog(git, last_good, {})
    follower = Follower(git, catalog, last_good, 60)
    good = repository.commit(dev="description: two", more="")
    await follower.refresh()
    assert (catalog.current().revision, sorted(catalog.current().definitions)) == (good, ["dev", "more"])

    broken = repository.commit(dev="description: three", more="x: 1")
    with structlog.testing.capture_logs() as logs:
        await follower.refresh()
        await follower.refresh()
    (told,) = logs
    assert (told["where"], told["refused"], told["revision"]) == ("more.yaml:1: x", broken, good)
    assert catalog.current().definitions["dev"].sample.description == "two"
    kept = last_good.read()
    assert kept is not None
    assert kept.revision == good

    mended = repository.commit(more="")
    await follower.refresh()
    assert catalog.current().revision == mended
    assert catalog.current().definitions["dev"].sample.description == "three"


async def test_an_outage_leaves_what_is_in_use(
    repository: Repository, source: Callable[..., GitSource], tmp_path: Path
) -> None:
    git, last_good = source(), LastGood(tmp_path / "kept")
    catalog = await first_catalog(git, last_good, {})
    repository.directory.rename(tmp_path / "away")
    with structlog.testing.capture_logs() as logs:
        await Follower(git, catalog, last_good, 60).refresh()
    assert logs[0]["event"] == "blueprints not refreshed"
    assert list(catalog.current().definitions) == ["dev"]


async def test_a_start_during_an_outage_takes_what_was_last_good(
    repository: Repository, source: Callable[..., GitSource], tmp_path: Path
) -> None:
    last_good = LastGood(tmp_path / "kept")
    good = (await first_catalog(source(), last_good, {})).current().revision
    repository.commit(dev="x: 1")
    assert (await first_catalog(source(), last_good, {})).current().revision == good
    with pytest.raises(BlueprintInvalid, match=r"dev\.yaml:1: x"):
        await first_catalog(source(), LastGood(tmp_path / "none"), {})
    repository.directory.rename(tmp_path / "away")
    assert (await first_catalog(source(), last_good, {})).current().revision == good
    with pytest.raises(BlueprintSourceFailed):
        await first_catalog(source(), LastGood(tmp_path / "none"), {})
    (tmp_path / "kept").write_text("{}")
    with pytest.raises(BlueprintSourceFailed):
        await first_catalog(source(), last_good, {})


async def test_the_proxy_follows_a_repository_by_itself(repository: Repository, tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "home": tmp_path / "home",
            "blueprint": {"source": "git", "git": {"url": repository.url}, "refresh_s": 1},
        }
    )
    async with open_catalog(settings, follow=True) as catalog:
        repository.commit(dev="description: two")
        async with asyncio.timeout(60):
            while catalog.current().definitions["dev"].sample.description != "two":
                await asyncio.sleep(0.05)
