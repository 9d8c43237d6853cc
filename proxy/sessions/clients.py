"""Names of SSH client programs, by their version text and their behaviour. Pure.

A client may send any text: the names are for operators and statistics, never for a decision.
"""

import re

OTHER = "other"

_VERSIONS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("OpenSSH for Windows", r"OpenSSH_for_Windows"),
        ("OpenSSH", r"OpenSSH"),
        ("WinSCP", r"WinSCP"),
        ("FileZilla", r"FileZilla"),
        ("KiTTY", r"PuTTY_KiTTY|KiTTY"),
        ("PuTTY", r"PuTTY"),
        ("Paramiko", r"paramiko"),
        ("AsyncSSH", r"AsyncSSH"),
        ("Dropbear", r"dropbear"),
        ("libssh2", r"libssh2"),  # before libssh, whose name it begins with
        ("libssh", r"libssh"),
        ("JSch", r"JSCH"),
        ("sshj", r"SSHJ|NET_3_\d"),
        ("Apache MINA", r"APACHE-SSHD|SSHD-(CORE|UNKNOWN)"),
        ("ssh2 (Node.js)", r"ssh2js"),
        ("Go", r"Go\b"),
        ("russh", r"(t?h)?russh"),
        ("SSH.NET", r"Renci\.SshNet"),
        ("phpseclib", r"phpseclib"),
        ("Net::SSH", r"Ruby/Net::SSH"),
        ("Twisted", r"Twisted"),
        ("Tera Term", r"TTSSH"),
        ("SecureCRT", r"SecureCRT"),
        ("Bitvise", r".*FlowSsh|.*Bitvise"),
        ("Termius", r"Termius"),
        ("Rebex", r"Rebex"),
        ("wolfSSH", r"wolfSSH"),
        ("Maverick", r"Maverick"),
        ("Erlang", r"Erlang"),
    )
)

_BEHAVIOUR: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("VS Code", re.compile(r"\.vscode(-server|-insiders|-remote)?\b|vscode-server|code-server-insiders")),
    ("Cursor", re.compile(r"\.cursor-server\b")),
    ("Windsurf", re.compile(r"\.windsurf-server\b")),
    ("VSCodium", re.compile(r"\.vscodium-server\b")),
    ("JetBrains", re.compile(r"JetBrains|remote-dev-server|\.jetbrains\b", re.IGNORECASE)),
    ("Zed", re.compile(r"\.zed_server\b|zed-remote-server")),
    ("Ansible", re.compile(r"\.ansible/tmp|AnsiballZ|ansible-tmp-")),
    ("Mosh", re.compile(r"^\s*(LANG=\S+\s+)?mosh-server\b")),
)


def by_version(version: str) -> str:
    """Return the name of the client by its version text after `SSH-2.0-`; `other` for an unknown one."""
    for name, pattern in _VERSIONS:
        if pattern.match(version):
            return name
    return OTHER


def by_command(command: str) -> str:
    """Return the name of the client by a command that only it runs; empty for other commands.

    Tools that start `ssh` have the version text of OpenSSH, but run a typical command first. Only the start
    of the command is compared, since some tools send whole programs.
    """
    start = command[:4_096]
    return next((name for name, pattern in _BEHAVIOUR if pattern.search(start)), "")
