"""Single files of repositories, read from the forges (GitHub, GitLab) among the providers.

Sources: docs.github.com REST "Repository contents", "Repositories"; docs.gitlab.com "Repository files API",
"Projects API". Both answer 404 for what does not exist and for what may not be read.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from proxy.errors.blueprints import BlueprintNotFound, RepositoryUnreachable
from proxy.http.client import Http, HttpFailed, Reply, Request
from proxy.http.secret import Secret
from proxy.onboarding.providers.github import api_of
from proxy.settings.onboarding import GitHubSettings, GitLabSettings, ProviderSettings

_GITHUB_HEADERS = {"Accept": "application/vnd.github.raw+json", "X-GitHub-Api-Version": "2022-11-28"}

_Forge = GitHubSettings | GitLabSettings


class RepositoryFiles:
    """The forges among the configured providers, by name."""

    def __init__(
        self, providers: Sequence[ProviderSettings], http: Http, tokens: Mapping[str, Secret]
    ) -> None:
        """Create it; `tokens` by provider may read private repositories."""
        self._forges = {
            one.title: one for one in providers if isinstance(one, GitHubSettings | GitLabSettings)
        }
        self._http = http
        self._tokens = tokens

    @property
    def providers(self) -> Sequence[str]:
        """Return the names of the providers that have repositories."""
        return list(self._forges)

    def clone_url(self, provider: str, repo: str) -> str:
        """Return the address for `git clone`."""
        return f"{self._forges[provider].url}/{repo}.git"

    async def read(self, provider: str, repo: str, ref: str, path: str, *, private: bool) -> bytes | None:
        """Read one file at a branch, tag or commit; return None when the repository has no such file there.

        An empty `ref` is the default branch; `private` allows the use of our token.

        Raises: BlueprintNotFound when there is no such repository, for us; RepositoryUnreachable.
        """
        forge = self._forges[provider]
        token = self._tokens.get(provider) if private else None
        reply = await self._get(provider, _file_url(forge, repo, ref, path), token)
        if reply.status == 200:
            return reply.body
        if reply.status == 404:
            known = await self._get(provider, _repository_url(forge, repo), token)
            if known.status == 200:
                return None
            if known.status == 404:
                raise BlueprintNotFound(
                    f"there is no repository {repo} at {provider}, or it is private; check its name, "
                    "or log in without repo="
                )
            reply = known
        raise _unreachable(provider, repo, f"status {reply.status}")

    async def _get(self, provider: str, url: str, token: Secret | None) -> Reply:
        headers = _GITHUB_HEADERS if isinstance(self._forges[provider], GitHubSettings) else {}
        try:
            return await self._http.send(Request(url, bearer=token, headers=headers))
        except HttpFailed as exc:
            raise _unreachable(provider, "", str(exc)) from None


def _file_url(forge: _Forge, repo: str, ref: str, path: str) -> str:
    if isinstance(forge, GitHubSettings):
        at = f"?ref={quote(ref, safe='')}" if ref else ""
        return f"{_repository_url(forge, repo)}/contents/{quote(path)}{at}"
    files = f"{_repository_url(forge, repo)}/repository/files"
    return f"{files}/{quote(path, safe='')}/raw?ref={quote(ref or 'HEAD', safe='')}"


def _repository_url(forge: _Forge, repo: str) -> str:
    if isinstance(forge, GitHubSettings):
        return f"{api_of(forge.url)}/repos/{quote(repo)}"
    return f"{forge.url}/api/v4/projects/{quote(repo, safe='')}"


def _unreachable(provider: str, repo: str, reason: str) -> RepositoryUnreachable:
    """Return the error for a forge that does not answer; `reason` is for the log."""
    about = f" about repository {repo}" if repo else ""
    return RepositoryUnreachable(
        f"{provider}{about}: {reason}",
        user_message=f"{provider} does not answer questions{about} at the moment",
    )
