"""Ansible on a workspace, by the client configuration and the inventories of docs/ansible.md."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead, needs

PAGE = (Path(__file__).parents[2] / "docs" / "ansible.md").read_text()
PLAYBOOK = shutil.which(
    "ansible-playbook", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
)
TRANSFERS = ("smart", "sftp", "scp", "piped")
PLAY = """\
- hosts: all
  tasks:
    - ansible.builtin.command: sh -c 'echo ran in $HOME'
      register: done
    - ansible.builtin.template: {src: note.j2, dest: ~/note}
    - ansible.builtin.copy: {content: "{{ done.stdout }}", dest: "{{ ansible_facts.env.HOME }}/copied"}
    - ansible.builtin.fetch: {src: ~/note, dest: fetched, flat: true}
    - ansible.builtin.command: /bin/false
      register: failing
      failed_when: failing.rc != 1
"""
SHORT_PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {content: x, dest: ~/note}
"""

pytestmark = [
    pytest.mark.timeout(300),  # a play starts some twenty programs, each by an SSH connection or channel
    needs("ssh", "scp", "sftp"),
    pytest.mark.skipif(PLAYBOOK is None, reason="optional, not found here: ansible-playbook (ansible-core)"),
]


class Controller:
    """A directory with a play, from which Ansible is run."""

    def __init__(self, fairlead: Fairlead, directory: Path) -> None:
        self.directory = directory
        self._fairlead = fairlead
        (directory / "play.yml").write_text(PLAY)
        (directory / "note.j2").write_text("{{ ansible_facts.user_id }} ä€\n")
        self.ssh_config = directory / "ssh_config"
        self.ssh_config.write_text("")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the page, of which the proxy's address is changed."""
        file = self.directory / name
        file.write_text(
            text.replace("host.example.com", "127.0.0.1").replace("2222", str(self._fairlead.port))
        )
        return file

    def play(self, inventory: Path, transfer: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run the play, with what tests need besides: a key, and a file of known hosts."""
        assert PLAYBOOK is not None
        known_hosts = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={self.directory}/known"
        extra = f"-F {self.ssh_config} -i {self._fairlead.key} -o IdentitiesOnly=yes {known_hosts}"
        env = {
            **os.environ,
            "HOME": str(self.directory),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_ARGS": f"{extra} -o ControlMaster=no",
        }
        return subprocess.run(
            [
                PLAYBOOK,
                "-i",
                inventory,
                "-e",
                f"ansible_ssh_transfer_method={transfer}",
                *options,
                "play.yml",
            ],
            cwd=self.directory,
            env=env,
            stdin=subprocess.DEVNULL,  # Ansible wants one that blocks, and that of the tests may not
            capture_output=True,
            text=True,
            timeout=280,
        )


@pytest.fixture
def controller(fairlead: Fairlead, tmp_path: Path) -> Controller:
    return Controller(fairlead, tmp_path)


def block(heading: str) -> str:
    """Return a block of the page by its first line."""
    found = re.search(rf"^```\w*\n# {re.escape(heading)}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def assert_played(
    fairlead: Fairlead, controller: Controller, done: "subprocess.CompletedProcess[str]"
) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    home = fairlead.workspace() / "home"
    whoami = fairlead.ssh("id -un").stdout.decode()
    assert (home / "note").read_text() == f"{whoami.strip()} ä€\n"
    assert (controller.directory / "fetched").read_bytes() == (home / "note").read_bytes()
    assert (home / "copied").read_text().startswith("ran in /")
    assert [path.name for path in home.iterdir() if path.name.startswith("~")] == []


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_a_play_runs_by_the_ssh_config_of_the_page(
    fairlead: Fairlead, controller: Controller, transfer: str
) -> None:
    """The first of them starts the workspace."""
    controller.write("ssh_config", block("~/.ssh/config"))
    inventory = controller.write("inventory.ini", block("inventory.ini"))
    assert_played(fairlead, controller, controller.play(inventory, transfer))


def test_a_play_runs_by_the_options_of_the_page(fairlead: Fairlead, controller: Controller) -> None:
    inventory = controller.write("inventory.ini", block("inventory-options.ini"))
    assert_played(fairlead, controller, controller.play(inventory, "smart"))


def test_what_the_page_says_of_ansible_user_is_so(fairlead: Fairlead, controller: Controller) -> None:
    home = fairlead.workspace() / "home"
    (controller.directory / "play.yml").write_text(SHORT_PLAY)
    inventory = controller.write("inventory.ini", "w ansible_host=host.example.com ansible_port=2222\n")
    user = ("-e", "ansible_user=alice+dev")
    assert controller.play(inventory, "sftp", *user).returncode == 0
    assert (home / "~alice+dev" / "note").exists()
    assert controller.play(inventory, "scp", *user).returncode != 0
    assert fairlead.ssh("rm -r ./~alice+dev").returncode == 0
    assert not (home / "~alice+dev").exists()
