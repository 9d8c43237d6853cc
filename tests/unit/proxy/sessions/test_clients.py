"""Which client that is: what real ones say, and what gives those away that start `ssh`."""

import pytest

from proxy.sessions.clients import by_command, by_version


@pytest.mark.parametrize(
    ("version", "client"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u3", "OpenSSH"),
        ("OpenSSH_10.0", "OpenSSH"),
        ("OpenSSH_8.9p1 Ubuntu-3ubuntu0.10", "OpenSSH"),
        ("OpenSSH_for_Windows_9.5", "OpenSSH for Windows"),
        ("PuTTY_Release_0.81", "PuTTY"),
        ("PuTTY_Snapshot_2024_01_02", "PuTTY"),
        ("PuTTY_KiTTY", "KiTTY"),
        ("WinSCP_release_6.3.3", "WinSCP"),
        ("FileZilla_3.67.0", "FileZilla"),
        ("paramiko_3.4.0", "Paramiko"),
        ("AsyncSSH_2.24.1", "AsyncSSH"),
        ("dropbear_2022.83", "Dropbear"),
        ("libssh_0.10.6", "libssh"),
        ("libssh-0.7.0", "libssh"),
        ("libssh2_1.11.0", "libssh2"),
        ("JSCH-0.1.54", "JSch"),
        ("JSCH_0.2.17", "JSch"),
        ("SSHJ_0.38.0", "sshj"),
        ("APACHE-SSHD-2.12.1", "Apache MINA"),
        ("ssh2js1.15.0", "ssh2 (Node.js)"),
        ("Go", "Go"),
        ("russh_0.44.0", "russh"),
        ("Renci.SshNet.SshClient.0.0.1", "SSH.NET"),
        ("phpseclib_3.0 (openssl)", "phpseclib"),
        ("Ruby/Net::SSH_7.2.1 x86_64-linux", "Net::SSH"),
        ("Twisted_22.4.0", "Twisted"),
        ("TTSSH/2.92 Win32", "Tera Term"),
        ("SecureCRT_9.5.1 (x64 build 3272) SecureCRT", "SecureCRT"),
        ("9.33 FlowSsh: Bitvise SSH Client (Tunnelier) 9.33", "Bitvise"),
        ("RebexSSH_5.0.8372.0", "Rebex"),
        ("Google-something", "other"),
        ("", "other"),
        ("\ud800\0", "other"),
        ("x" * 100_000, "other"),
    ],
)
def test_what_clients_say(version: str, client: str) -> None:
    assert by_version(version) == client


@pytest.mark.parametrize(
    ("command", "client"),
    [
        ("bash -c 'ls ~/.vscode-server/bin/abcdef'", "VS Code"),
        ('sh -c "cd $HOME/.vscode-server-insiders && ./code"', "VS Code"),
        ("test -d /home/alice/.cursor-server/bin", "Cursor"),
        ("$HOME/.cache/JetBrains/RemoteDev/dist/x/bin/remote-dev-server.sh status", "JetBrains"),
        ("~/.zed_server/zed-remote-server-stable proxy", "Zed"),
        ("/bin/sh -c 'echo ~ && mkdir -p \"` echo /tmp/.ansible/tmp `\"'", "Ansible"),
        ("mosh-server new -s -c 256 -l LANG=C.UTF-8", "Mosh"),
        ("make test", ""),
        ("", ""),
        ("x" * 1_000_000 + ".vscode-server", ""),
    ],
)
def test_what_gives_a_client_away(command: str, client: str) -> None:
    assert by_command(command) == client
