"""The production base under other namespace names, by the commands of docs/deploy.md, and `ssh` to it.

The commands run as they are written, in a directory with the files that the page shows. What an operator has
outside of the cluster is tests/e2e/site.py.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import documents
from tests.contract.independent import installed, through_the_provider
from tests.e2e import cluster as real
from tests.e2e.cluster import Cluster, until
from tests.e2e.kubectl import FOR_OLD, is_old, kubectl
from tests.e2e.site import SSH, Site
from tests.fakes.browser import Page
from tests.images import docker
from tests.wire.browser import Shown, in_a_loop
from tests.wire.harness import needs
from tests.wire.newcomer import Attempt, make_key

__all__ = ["installed"]

pytestmark = [pytest.mark.cluster, needs("kubectl", "haproxy"), pytest.mark.timeout(1_800)]

OWN, WORKSPACES = "ssh-proxies", "ssh-workspaces"
"""As the page names them."""
IMAGES = ("fairlead-proxy", "fairlead-shelld")
CLIENT = "127.9.8.7"
"""The address that the client has before the balancer."""
TYPED = b"echo in=$((6 * 7)); hostname; echo from=$SSH_CONNECTION\n"


@dataclass
class Installation:
    """A directory of an operator beside the checkout, and what became of it."""

    directory: Path
    site: Site
    cluster: Cluster
    printed: str = ""
    """What the commands of the page printed."""
    words: str = ""
    """What the shell at their end printed."""

    @property
    def own(self) -> Path:
        return self.directory / "site"

    def prepare(self, storage_class: str) -> None:
        """Write the files of the page; what is of this site stands for its examples."""
        (self.directory / "fairlead").symlink_to(docker.ROOT)
        self.own.mkdir()
        here = {**self.site.names, "standard": storage_class, '"3600"': '"60"'}
        words = re.compile("|".join(map(re.escape, here)))
        for file, text in documents.files("deploy.md", "Production").items():
            (self.own / file).write_text(words.sub(lambda found: here[found[0]], text))
        kustomization = yaml.safe_load((self.own / "kustomization.yaml").read_text())
        if is_old():
            kustomization["components"].insert(0, f"../fairlead/deploy/kubernetes/{FOR_OLD}")
        names = [{"op": "add", "path": "/spec/template/spec/hostAliases", "value": self.site.host_aliases()}]
        kustomization["patches"] = [
            {"target": {"kind": "Deployment", "name": "fairlead"}, "patch": json.dumps(names)}
        ]
        (self.own / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        self.site.write_secrets(self.own)
        self._write_programs(make_key(self.directory / "id"))

    def _write_programs(self, key: Path) -> None:
        """Write the programs that stand before the real ones: a node here has the images of this docker."""
        (places := self.directory / "bin").mkdir()
        programs = {
            "docker": f'[ "$1" = push ] && exit 0\nexec {shutil.which("docker")} "$@"',
            "ssh": f"""exec {shutil.which("ssh")} -F none -b {CLIENT} -p {self.site.ssh_port} -i {key} \\
                -o HostName=127.0.0.1 -o HostKeyAlias={SSH} -o StrictHostKeyChecking=yes \\
                -o UserKnownHostsFile={self.directory}/known_hosts -o IdentitiesOnly=yes \\
                -o IdentityAgent=none "$@"
            """,
        }
        for name, text in programs.items():
            (places / name).write_text(f"#!/bin/sh\n{text}\n")
            (places / name).chmod(0o755)

    def run(self, *commands: str) -> None:
        """Run blocks of the page in one shell."""
        done = subprocess.run(
            ["/bin/bash", "-ec", "".join(commands)],
            cwd=self.own,
            env={
                **os.environ,
                "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
                "BASE": docker.base(),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1_500,
        )
        self.printed = done.stdout
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def balancer_config(self) -> str:
        """Return the configuration of the page, with the one node and the ports of this site."""
        (text,) = documents.blocks("deploy.md", "Production", "haproxy")
        service = self.cluster.core.read_namespaced_service("fairlead", OWN)
        node = next(
            address.address
            for address in self.cluster.core.list_node().items[0].status.addresses
            if address.type == "InternalIP"
        )
        here = {
            ":22\n": f"127.0.0.1:{self.site.ssh_port}\n",
            "10.0.0.11:30022": f"{node}:{service.spec.ports[0].node_port}",
        }
        lines = [line for line in text.splitlines(keepends=True) if "node-2" not in line]
        words = re.compile("|".join(map(re.escape, here)))
        return words.sub(lambda found: here[found[0]], "".join(lines))

    def page(self) -> str:
        service = self.cluster.core.read_namespaced_service("fairlead-page", OWN)
        return f"{service.spec.cluster_ip}:{service.spec.ports[0].port}"

    def log_in(self, command: str, *words: str) -> Attempt:
        """Run the command of the page with which a user logs in."""
        program, *arguments = shlex.split(command)
        assert program == "ssh"
        return Attempt([str(self.directory / "bin" / "ssh"), *arguments, *words], None if words else TYPED)

    def first_login(self, command: str) -> None:
        key = (self.own / "host-keys" / "ssh_host_ed25519_key.pub").read_text()
        (self.directory / "known_hosts").write_text(f"{SSH} {key}")
        with self.log_in(command) as attempt:
            page = self.visit(attempt.shown())
            assert "Confirmed" in page.text, page.text
            assert attempt.wait(300) == 0, attempt.err
            self.words = attempt.out.decode()

    def visit(self, shown: Shown) -> Page:
        """Open the link, sign in at the provider, and confirm."""

        async def work() -> Page:
            async with self.site.browser() as browser:
                page = await through_the_provider(browser, shown.link, "alice")
                assert shown.code in page.text
                return await browser.submit(page, "confirm")

        return in_a_loop(work())

    def fairlead(self, *words: str) -> str:
        """Run a command in one of the proxies."""
        return kubectl("-n", OWN, "exec", "deployment/fairlead", "--", "fairlead", *words)

    def rows(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.fairlead(*words, "--json"))
        return found


def _open_to_pods(directory: Path) -> Path:
    for parent in directory.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def installation(
    needs_cluster: None, installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    del needs_cluster
    # What the last run left takes its time to go.
    kubectl(
        "wait", "--for=delete", f"namespace/{OWN}", f"namespace/{WORKSPACES}", "--timeout=240s", check=False
    )
    directory, cluster = tmp_path_factory.mktemp("production"), Cluster(WORKSPACES)
    volumes = _open_to_pods(tmp_path_factory.mktemp("volumes"))
    docker.docker("tag", real.image("glibc"), "debian:bookworm")  # a node without a registry has it already
    *commands, login = documents.blocks("deploy.md", "Production", "sh")
    with (
        Site(tmp_path_factory.mktemp("outside"), installed).running() as site,
        cluster.storage_class(volumes) as storage_class,
    ):
        made = Installation(directory, site, cluster)
        made.prepare(storage_class)
        try:
            made.run(*commands)
            with site.balancer(made.balancer_config(), made.page()):
                made.first_login(login)
                yield made
        except BaseException:
            print(kubectl("-n", OWN, "get", "pods,events", check=False))
            print(
                kubectl(
                    "-n", OWN, "logs", "-l", "app.kubernetes.io/component=proxy", "--tail=-1", check=False
                )
            )
            raise
        finally:
            kubectl("delete", "namespace", OWN, WORKSPACES, "--timeout=120s", check=False)
            tags = [f"registry.example.com/{name}:1" for name in IMAGES]
            docker.docker("rmi", "debian:bookworm", *tags, check=False)


def test_the_commands_of_the_page_end_in_a_shell_of_a_user_who_was_onboarded(
    installation: Installation,
) -> None:
    assert re.search(r"^in=42\nalice-\S+-0\nfrom=(\S+)", installation.words, re.MULTILINE), installation.words
    (alice,) = installation.rows("user", "list")
    assert alice["name"] == "alice"
    assert "company" in installation.fairlead("user", "show", "alice")


def test_the_proxies_see_the_client_behind_the_balancer(installation: Installation) -> None:
    assert f"\nfrom={CLIENT} " in installation.words
    assert installation.rows("ban", "list") == [], "nor do the balancer's checks look like attacks"


def test_everything_that_the_settings_name_works(installation: Installation) -> None:
    """`check` is a command of the page, and ended without an error; this is what it tried."""
    tried = installation.fairlead("check")
    for what in ("database", "nats", "provider company", "recordings", "blueprints", "trust"):
        assert what in tried, tried


def test_the_shell_is_recorded_in_the_bucket(installation: Installation) -> None:
    def ended() -> list[dict[str, Any]]:
        return [row for row in installation.rows("session", "recordings", "list") if row["ended_at"]]

    row = until("the recording of the shell has ended", ended)[0]
    assert [name for name in installation.site.objects() if row["id"] in name]
    installation.fairlead("session", "verify", row["id"])
    assert "in=42" in installation.fairlead("session", "replay", row["id"], "--export", "cast")


def test_either_replica_lets_the_user_in_without_a_question(installation: Installation) -> None:
    *_, login = documents.blocks("deploy.md", "Production", "sh")

    def both() -> bool:
        with installation.log_in(login, "true") as more:
            assert more.wait(120) == 0, more.err
        listed = installation.rows("session", "list", "--user", "alice", "--all")
        return len({row["proxy_id"] for row in listed}) > 1

    until("both replicas have let alice in", both)


def test_the_home_is_on_a_volume_of_the_class(installation: Installation) -> None:
    claims = installation.cluster.core.list_namespaced_persistent_volume_claim(WORKSPACES).items
    assert [claim.status.phase for claim in claims] == ["Bound"]


def test_the_database_is_bound_to_the_installation(installation: Installation) -> None:
    settings = yaml.safe_load((installation.own / "settings.yaml").read_text())
    assert settings["identity"]["installation"] in installation.fairlead("database", "show")
