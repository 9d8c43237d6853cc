"""Interfaces between these extensions of asyncssh and the modules that use them."""

from enum import Enum
from typing import Protocol

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate

from proxy.ssh.asyncssh_ext.variables import AcceptedNames

Certificate = SSHOpenSSHCertificate
"""An OpenSSH user certificate, decoded; its authority's signature is verified."""


class AuthReply(Enum):
    """The answer to the client when a method of authentication succeeded."""

    ENTER = "success"
    MORE = "partial success"
    REFUSE = "failure"


class LoginGuard(asyncssh.SSHServer):
    """Callbacks before a login succeeds. The defaults refuse, as asyncssh's own callbacks do."""

    async def may_enter(self, key_blob: bytes) -> AuthReply:
        """Decide about the login after a method succeeded; `key_blob` is the key that was proved last."""
        del key_blob
        return AuthReply.REFUSE

    async def certificate_offered(self, certificate: Certificate) -> bool:
        """Return whether the client may sign with this certificate."""
        del certificate
        return False

    def asked(self, what: str, *, proves: bool = False) -> None:
        """Count a request before the login; `proves` is True for a request with the signature of a key.

        Raises: asyncssh.DisconnectError when the budget is used up.
        """

    def method_failed(self, method: str) -> None:
        """Count a failed method before the client is answered; a banner may give the reason.

        Raises: asyncssh.DisconnectError when the budget is used up.
        """

    def method_led_on(self) -> None:
        """Count a partial success (RFC 4252 §5.1)."""


class ChannelRequests(Protocol):
    """The application's side of a session channel: requests that asyncssh does not decide (RFC 4254 §6)."""

    @property
    def accepted_names(self) -> AcceptedNames:
        """Return the names of variables that the workspace takes."""

    def env_requested(self, name: bytes, value: bytes) -> bool:
        """Return whether the variable is accepted."""

    def ssh_agent_requested(self) -> bool:
        """Return whether ssh-agent forwarding is accepted."""

    def shell_requested(self) -> bool:
        """Return whether a shell is accepted."""

    def exec_requested(self, command: str) -> bool:
        """Return whether the command is accepted."""

    def subsystem_requested(self, subsystem: str) -> bool:
        """Return whether the subsystem is accepted."""

    def reader_left(self) -> None:
        """Handle that the client's end of stdout is closed."""
