"""Settings of the SSH listener."""

from pathlib import Path

from pydantic import field_validator

from proxy.settings.base import Count, Section

_VERSION_CHARS = 200
"""RFC 4253 §4.2 allows 255 bytes with `SSH-2.0-` and the line's end."""


class ListenSettings(Section):
    """The SSH listener: host keys and algorithms."""

    host_key_dir: Path | None = None
    """Holds ssh_host_{ed25519,ecdsa,rsa}_key; default `<home>/host_keys`, made on the first start."""
    backlog: Count = 1_024
    ciphers: tuple[str, ...] = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "aes256-ctr",
        "aes192-ctr",
        "aes128-ctr",
    )
    """Offered to clients. A stock OpenSSH asks for ChaCha20 first and takes the first of its own list that
    is offered; see `prefer_aes_gcm`."""
    prefer_aes_gcm: bool = True
    """Offer the others only to clients that know no AES-GCM: with AES instructions it is twice as fast
    at both ends."""
    macs: tuple[str, ...] = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
    """Offered to clients that use no AEAD cipher. Encrypt-and-MAC (`hmac-sha2-256`, `hmac-sha2-512`) is left
    out because it authenticates the plain text; an old client may need it, and then it is added here."""
    version: str = "OpenSSH_9.9 Fairlead"
    """Shown in the version exchange after `SSH-2.0-` (RFC 4253 §4.2): a software version of printable ASCII
    without blanks and `-`, then perhaps a blank and a comment. Clients choose their behaviour by it, and what
    is behind Fairlead behaves as OpenSSH does. Servers that do not begin with `OpenSSH` get no `eow` from
    `ssh` (`ssh host yes | head -1` then never ends), the arguments of sftp's SYMLINK the other way round from
    asyncssh, libssh and npm's ssh2, and no Unix-socket forwards from ssh2."""

    @field_validator("version")
    @classmethod
    def _version_of_rfc_4253(cls, version: str) -> str:
        software, blank, comment = version.partition(" ")
        is_text = version.isascii() and version.isprintable() and len(version) <= _VERSION_CHARS
        if not is_text or not software or "-" in software or bool(blank) != bool(comment):
            raise ValueError(
                f"must be printable ASCII of at most {_VERSION_CHARS} characters: a version without `-` and "
                "perhaps a comment behind a blank, as in `OpenSSH_9.9 Fairlead`"
            )
        return version
