"""A web app as people write them, run in a workspace: echo by WebSocket, uploads, downloads, a page.

GET /            a page that opens /ws, and shows what comes back
GET /ws          echo, compressed where the client can
GET /down?n=     so many bytes
PUT /up          says how many bytes came, and their CRC-32
"""

import sys
import zlib

from aiohttp import WSMsgType, web

PAGE = """<!doctype html><title>app</title><p id=said>waiting</p><script>
const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
socket.onopen = () => socket.send("x".repeat(100000));
socket.onmessage = event => {
  document.getElementById("said").textContent = "echo of " + event.data.length + " through " + location.host;
};
socket.onclose = event => { document.title = "closed " + event.code + " " + event.reason; };
</script>"""
PIECE = bytes(range(256)) * 1024


async def page(request: web.Request) -> web.Response:
    del request
    return web.Response(text=PAGE, content_type="text/html")


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(
        max_msg_size=0, compress="deflate" in request.headers.get("X-Compress", "")
    )
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def down(request: web.Request) -> web.StreamResponse:
    left = int(request.query["n"])
    response = web.StreamResponse()
    response.content_length = left
    await response.prepare(request)
    while left:
        piece = PIECE[:left]
        await response.write(piece)
        left -= len(piece)
    return response


async def up(request: web.Request) -> web.Response:
    size, crc = 0, 0
    async for piece in request.content.iter_any():
        size += len(piece)
        crc = zlib.crc32(piece, crc)
    return web.json_response({"size": size, "crc": crc})


def main() -> None:
    app = web.Application(client_max_size=1 << 40)
    app.add_routes([web.get("/", page), web.get("/ws", echo), web.get("/down", down), web.put("/up", up)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
