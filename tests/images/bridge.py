"""`sftp -D` runs this as its server: it carries stdin and stdout to the sftp subsystem of a shelld."""

import asyncio
import os
import sys
from pathlib import Path

import grpc
import grpc.aio

from protos.shelld.v1 import shelld_pb2 as pb
from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from tests.images.trust import SERVER_NAME, token


async def main(address: str, directory: Path) -> int:
    files = [(directory / name).read_bytes() for name in ("ca", "key", "crt")]
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(*files), grpc.access_token_call_credentials(token())
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        call = ShelldStub(channel).Run()
        await call.write(pb.RunInput(start=pb.Start(subsystem=b"sftp")))
        feeding = asyncio.ensure_future(feed(call))
        status = 255
        while (frame := await call.read()) is not grpc.aio.EOF:
            kind = frame.WhichOneof("frame")
            if kind == "stdout":
                os.write(1, frame.stdout)
            elif kind == "stderr":
                os.write(2, frame.stderr)
            elif kind == "start_failed":
                os.write(2, frame.start_failed.reason.encode() + b"\n")
            elif kind == "exit":
                status = frame.exit.status
                break  # the last frame; the call lasts until its client has read this and ends it
        feeding.cancel()
        call.cancel()
        return status


async def feed(call) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.run_in_executor(None, os.read, 0, 65536):
        await call.write(pb.RunInput(stdin=data))
    await call.write(pb.RunInput(stdin_eof=pb.Eof()))


if __name__ == "__main__":
    status = asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
    sys.stdout.flush()
    os._exit(status)  # a thread still reads stdin
