"""Files of repositories, asked of a GitHub and a GitLab by script."""

from collections.abc import AsyncIterator

import pytest

from proxy.blueprints.forges import RepositoryFiles
from proxy.errors.blueprints import BlueprintNotFound, RepositoryUnreachable
from proxy.http.client import HttpClient
from proxy.http.secret import Secret
from proxy.settings.onboarding import GitHubSettings, GitLabSettings, HttpSettings, OidcSettings
from tests.fakes.provider import HANG_UP, Say, Scripted

TOKEN = "token-that-nobody-may-see"
FILE = ".fairlead.yaml"
HUB_REPO = "/api/v3/repos/acme/shop"
HUB_FILE = f"{HUB_REPO}/contents/{FILE}"
LAB_REPO = "/api/v4/projects/acme%2Fshop"
LAB_FILE = f"{LAB_REPO}/repository/files/{FILE}/raw"


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as server:
        yield server


@pytest.fixture
async def files(server: Scripted) -> AsyncIterator[RepositoryFiles]:
    http = HttpClient(HttpSettings(request_timeout_s=5))
    providers = [
        GitHubSettings(kind="github", url=server.url, client_id="x"),
        GitLabSettings(kind="gitlab", url=server.url, client_id="x"),
        OidcSettings(kind="oidc", issuer="https://id.example.com", client_id="x"),
    ]
    yield RepositoryFiles(providers, http, {"github": Secret(TOKEN), "gitlab": Secret(TOKEN)})
    await http.close()


@pytest.mark.parametrize(
    ("provider", "ref", "path"),
    [
        ("github", "", HUB_FILE),
        ("github", "feature/x+1&y", f"{HUB_FILE}?ref=feature/x%2B1%26y"),
        ("gitlab", "", f"{LAB_FILE}?ref=HEAD"),
        ("gitlab", "feature/x+1&y", f"{LAB_FILE}?ref=feature/x%2B1%26y"),
    ],
)
@pytest.mark.parametrize("private", [True, False])
async def test_a_file_is_read_at_a_ref(
    files: RepositoryFiles, server: Scripted, provider: str, ref: str, path: str, private: bool
) -> None:
    server.on(path, Say(b"description: the shop\n"))
    data = await files.read(provider, "acme/shop", ref, FILE, private=private)
    assert data == b"description: the shop\n"
    (request,) = server.asked
    assert (request[3].get("Authorization") == f"Bearer {TOKEN}") is private


@pytest.mark.parametrize(
    ("provider", "file", "repository"),
    [("github", HUB_FILE, HUB_REPO), ("gitlab", f"{LAB_FILE}?ref=HEAD", LAB_REPO)],
)
async def test_no_file_and_no_repository_are_told_apart(
    files: RepositoryFiles, server: Scripted, provider: str, file: str, repository: str
) -> None:
    server.on(file, Say(status=404))
    server.on(repository, Say({}))
    assert await files.read(provider, "acme/shop", "", FILE, private=False) is None
    server.on(repository, Say(status=404))
    with pytest.raises(BlueprintNotFound, match=f"no repository acme/shop at {provider}, or it is private"):
        await files.read(provider, "acme/shop", "", FILE, private=False)


@pytest.mark.parametrize("answer", [Say(status=500), Say(status=403), Say(status=301), HANG_UP])
async def test_what_is_no_answer_is_told_without_the_token(
    files: RepositoryFiles, server: Scripted, answer: Say
) -> None:
    server.on(HUB_FILE, answer)
    with pytest.raises(RepositoryUnreachable) as caught:
        await files.read("github", "acme/shop", "", FILE, private=True)
    assert TOKEN not in str(caught.value) + caught.value.user_message
    assert "github does not answer" in caught.value.user_message


async def test_only_forges_have_repositories(files: RepositoryFiles, server: Scripted) -> None:
    assert list(files.providers) == ["github", "gitlab"]
    assert files.clone_url("gitlab", "acme/shop") == f"{server.url}/acme/shop.git"
