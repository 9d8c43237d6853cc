"""Names of asyncssh below its documented surface that requests, logins and packets rely on."""

import asyncio
import inspect
import typing

import asyncssh
import asyncssh.connection
import pytest
from asyncssh.channel import SSHChannel
from asyncssh.compression import Decompressor
from asyncssh.constants import MSG_GLOBAL_REQUEST

from proxy.ssh.asyncssh_ext import tolerance
from proxy.ssh.asyncssh_ext.channels import AgentChannel, SessionChannel, TcpChannel, UnixChannel
from proxy.ssh.asyncssh_ext.connection import ServerConnection
from proxy.ssh.asyncssh_ext.requests import OrderedRequests

_METHODS = {
    "_process_global_request": ["self", "_pkttype", "_pktid", "packet"],
    "_service_next_global_request": ["self"],
    "_report_global_response": ["self", "result"],
    "_process_hostkeys_prove_00_at_openssh_dot_com_global_request": ["self", "packet"],
    "_process_tcpip_forward_global_request": ["self", "packet"],
    "_finish_port_forward": ["self", "listen_host", "listen_port"],
    "_process_cancel_tcpip_forward_global_request": ["self", "packet"],
    "_process_direct_streamlocal_at_openssh_dot_com_open": ["self", "packet"],
    "_process_streamlocal_forward_at_openssh_dot_com_global_request": ["self", "packet"],
    "_process_cancel_streamlocal_forward_at_openssh_dot_com_global_request": ["self", "packet"],
    "_finish_path_forward": ["self", "listen_path"],
    "_recv_packet": ["self"],
    "_finish_recv_packet": ["self", "pkttype", "seq", "_task", "is_async"],
    "log_received_packet": ["self", "pkttype", "pktid", "packet", "note"],
    "process_packet": ["self", "pkttype", "pktid", "packet"],
    "send_channel_open_failure": ["self", "send_chan", "code", "reason", "lang"],
    "_finish_userauth": ["self", "begin_auth", "method", "packet"],
    "_process_service_request": ["self", "_pkttype", "_pktid", "packet"],
    "_send_ext_info": ["self"],
    "_process_newkeys": ["self", "_pkttype", "_pktid", "packet"],
    "_update_recv_pktlen": ["self", "max_pktsize"],
    "create_task": ["self", "coro", "task_logger"],
}
_ATTRIBUTES = (
    "_deferred_packets",
    "_global_request_queue",
    "_local_listeners",
    "_extensions_to_send",
    "_global_request_waiters",
    "_channels",
    "_next_decompressor",
    "_next_recv_encryption",
    "_recv_encryption",
    "_can_recv_ext_info",
    "_auth_complete",
    "_auth_final",
    "_max_recv_pktlen",
    "_transport",
)
_OF_CHANNELS = {
    "_service_next_request": ["self"],
    "_report_response": ["self", "result"],
    "_accept_data": ["self", "data", "datatype"],
    "process_packet": ["self", "pkttype", "pktid", "packet"],
    "abort": ["self"],
}
_CHANNEL_ATTRIBUTES = (
    "_recv_state",
    "_recv_window",
    "_init_recv_window",
    "_request_waiters",
    "_read_datatypes",
)


@pytest.mark.parametrize("name", _METHODS)
def test_the_connection_has_the_method(name: str) -> None:
    method = getattr(asyncssh.SSHServerConnection, name)
    assert list(inspect.signature(method).parameters) == _METHODS[name]


@pytest.mark.parametrize("name", _OF_CHANNELS)
def test_a_channel_has_the_method(name: str) -> None:
    assert list(inspect.signature(getattr(SSHChannel, name)).parameters) == _OF_CHANNELS[name]


def test_a_channel_has_the_attributes() -> None:
    names = SSHChannel.__init__.__code__.co_names
    assert [name for name in _CHANNEL_ATTRIBUTES if name not in names and not hasattr(SSHChannel, name)] == []


@pytest.mark.parametrize("reason", tolerance._TO_OTHERS)
def test_asyncssh_gives_a_packet_to_no_handler_for_the_reason(reason: str) -> None:
    source = inspect.getsource(asyncssh.connection.SSHConnection._recv_packet)
    assert f"skip_reason = '{reason}'" in source
    assert source.index("log_received_packet") < source.index("raise ProtocolError(exc_reason)")


async def test_the_connection_has_the_attributes() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    options = await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=asyncssh.SSHServer, server_host_keys=[key]
    )
    made = asyncssh.SSHServerConnection(asyncio.get_running_loop(), options)
    for name in _ATTRIBUTES:
        assert hasattr(made, name), name


def test_the_table_of_packets_leads_to_the_bounded_queue() -> None:
    assert ServerConnection._packet_handlers[MSG_GLOBAL_REQUEST] is OrderedRequests._process_global_request


def test_a_report_goes_on_with_the_next_request_by_the_method_that_is_overridden() -> None:
    source = inspect.getsource(asyncssh.connection.SSHConnection._report_global_response)
    assert "self._global_request_queue.pop(0)" in source
    assert "self._service_next_global_request()" in source


def test_a_decompressor_is_one_method() -> None:
    public = [name for name in vars(Decompressor) if not name.startswith("__")]
    assert public == ["decompress"]


def test_new_keys_take_the_decompressor_that_was_put_there() -> None:
    source = inspect.getsource(asyncssh.connection.SSHConnection._process_newkeys)
    assert "self._decompressor = self._next_decompressor" in source


@pytest.mark.parametrize("kind", [SessionChannel, TcpChannel, UnixChannel, AgentChannel])
def test_every_request_of_a_channel_is_answered_at_once(kind: type[SSHChannel[bytes]]) -> None:
    """A handler that answers later would let requests pile up behind it, without a bound and by recursion."""
    handlers = [name for name in dir(kind) if name.startswith("_process_") and name.endswith("_request")]
    assert "_process_keepalive_at_openssh_dot_com_request" in handlers
    for name in handlers:
        if name != "_process_request":
            assert typing.get_type_hints(getattr(kind, name))["return"] is bool, name
