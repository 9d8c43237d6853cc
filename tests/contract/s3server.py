"""A server that speaks S3 (moto's), on loopback, with one bucket; and one that says nothing at all."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import moto.settings
import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from proxy.settings.recording import S3Settings

BUCKET = "recordings"


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[str]:
    """Run moto and make the bucket; gives the endpoint."""
    # A host such as s3.example.com is an endpoint, not the bucket `s3`.
    moto.settings.S3_IGNORE_SUBDOMAIN_BUCKETNAME = "1"
    server = ThreadedMotoServer(address, 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        _make_bucket(host, port)
        yield endpoint
    finally:
        server.stop()


@contextmanager
def silent_server() -> Iterator[str]:
    """Accept connections and never answer; gives the endpoint."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in accepted:
                connection.close()


def settings_for(endpoint: str, directory: Path, prefix: str = "") -> S3Settings:
    """Make settings with a secret in a file."""
    secret = directory / "s3-secret"
    secret.write_text("secret\n")
    return S3Settings(
        bucket=BUCKET, prefix=prefix, endpoint=endpoint, access_key_id="id", secret_access_key_file=secret
    )


def _make_bucket(host: str, port: int) -> None:
    with closing(socket.create_connection((host, port), 10)) as connection:
        connection.sendall(
            f"PUT /{BUCKET} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 0\r\nConnection: close\r\n"
            "Authorization: AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request\r\n"
            "\r\n".encode()
        )
        answer = connection.recv(4_096)
    assert b" 200 " in answer.partition(b"\r\n")[0], answer


def names(endpoint: str, directory: Path) -> list[str]:
    """List every object, past the code that is tested."""
    settings = settings_for(endpoint, directory)
    store = S3Store(
        settings.bucket,
        endpoint=endpoint,
        access_key_id="id",
        secret_access_key="secret",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    return sorted(item["path"] for chunk in obstore.list(store) for item in chunk)
