"""Interfaces between these extensions of asyncssh and the modules that use them."""

from enum import Enum
from typing import Protocol

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate

from proxy.ssh.asyncssh_ext.variables import AcceptedNames

Certificate = SSHOpenSSHCertificate
"""An OpenSSH user certificate, decoded; its authority's signature is verified."""


class Verdict(Enum):
    """The answer to the client when a method of authentication has done its part."""

    ENTER = "success"
    MORE = "partial success"
    REFUSE = "failure"


class LoginGuard(asyncssh.SSHServer):
    """Questions that are asked before a login succeeds; by default refused, as asyncssh's own hooks do."""

    async def may_enter(self, key_blob: bytes) -> Verdict:
        """Decide about the holder of this key, the last one whose signature was verified."""
        del key_blob
        return Verdict.REFUSE

    async def certificate_offered(self, certificate: Certificate) -> bool:
        """Decide whether a certificate is worth a signature."""
        del certificate
        return False

    def asked(self, what: str, *, proves: bool = False) -> None:
        """Count what a client asks before it is logged in; `proves` is a request with the signature of a key.

        Raises: asyncssh.DisconnectError when it has asked too often.
        """

    def method_failed(self, method: str) -> None:
        """Count a method that led nowhere, before the client is answered; a banner may say why.

        Raises: asyncssh.DisconnectError when too many did.
        """

    def method_led_on(self) -> None:
        """Count a partial success (RFC 4252 §5.1)."""


class ChannelRequests(Protocol):
    """The application's side of a session channel: requests that asyncssh does not decide (RFC 4254 §6)."""

    @property
    def accepted_names(self) -> AcceptedNames: ...
    def env_requested(self, name: bytes, value: bytes) -> bool: ...
    def ssh_agent_requested(self) -> bool: ...
    def shell_requested(self) -> bool: ...
    def exec_requested(self, command: str) -> bool: ...
    def subsystem_requested(self, subsystem: str) -> bool: ...
    def reader_left(self) -> None: ...
