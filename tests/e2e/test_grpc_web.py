"""gRPC-Web, by clients that speak it over each version of HTTP, byte by byte, to a server of gRPC made with grpcio."""

import asyncio
import base64
import contextlib
import json
import random
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.kit import http2, http3, wire
from tests.e2e.kit.grpc_server import calls_server
from tests.e2e.kit.h2server import H2Server
from tests.e2e.kit.http2 import HOST, ErrorCodes
from tests.e2e.kit.peers import play, running
from tests.e2e.kit.sites import LOOPBACK, Config, site
from tests.e2e.kit.tunnels import VERSIONS
from tests.e2e.kit.wire import Head, Wire, request_bytes
from tidegate.testing import Gateway

TLS = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}
LISTENERS: dict[str, Any] = {
    "edge": {"bind": LOOPBACK},
    "tls": {"bind": LOOPBACK, "tls": TLS, "http": ["h1", "h2", "h3"]},
}
BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
TRAILERS = 0x80

every_version = pytest.mark.parametrize("version", VERSIONS)
every_media = pytest.mark.parametrize("media", [BINARY, TEXT], ids=["binary", "text"])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("grpc-web")
    certificate = trustme.CA().issue_cert(HOST)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(made / "site.pem"))
    return made


def config(url: str, **taken: Any) -> Config:
    upstreams = {"app": {"endpoints": [url], "protocol": "h2"}}
    return site({"name": "app", "to": "app"} | taken, listeners=LISTENERS, upstreams=upstreams, workers=1)


@contextlib.asynccontextmanager
async def served(directory: Path, **taken: Any) -> AsyncIterator[Gateway]:
    async with calls_server() as url, running(config(url, **taken), directory=directory) as gateway:
        yield gateway


# ---- a client -------------------------------------------------------------------------------------------------------

Stream = Wire | http2.H2Stream | http3.H3Stream


def message(content: bytes, flags: int = 0) -> bytes:
    return struct.pack("!BI", flags, len(content)) + content


def written(content: bytes, media: str) -> bytes:
    """As a body of this type."""
    return base64.b64encode(content) if "text" in media else content


def unwritten(body: bytes, media: str) -> bytes:
    """Pieces of base64 may each have their padding."""
    if "text" not in media:
        return body
    assert len(body) % 4 == 0
    return b"".join(base64.b64decode(body[at : at + 4], validate=True) for at in range(0, len(body), 4))


def parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Flags and content of each frame."""
    while content:
        flags, length = struct.unpack("!BI", content[:5])
        assert len(content) >= 5 + length, content
        yield flags, content[5 : 5 + length]
        content = content[5 + length :]


def read(body: bytes, media: str) -> tuple[list[bytes], dict[str, str]]:
    """The messages, and the trailers behind them."""
    found = list(parts(unwritten(body, media)))
    assert [flags for flags, _ in found[:-1]] == [0] * (len(found) - 1)
    flags, last = found[-1]
    assert flags == TRAILERS and last.endswith(b"\r\n"), found
    pairs = (line.partition(":") for line in last.decode().removesuffix("\r\n").split("\r\n"))
    return [content for _, content in found[:-1]], {name: value.strip() for name, _, value in pairs}


@contextlib.asynccontextmanager
async def calling(
    gateway: Gateway, version: str, path: str, media: str, *fields: tuple[str, str]
) -> AsyncIterator[Stream]:
    """A call whose body is still to be sent."""
    head = [("content-type", media), ("x-grpc-web", "1"), ("accept", media), *fields]
    async with contextlib.AsyncExitStack() as stack:
        stream: Stream
        if version == "h1":
            stream = await stack.enter_async_context(wire.dial(gateway.port("edge")))
            lines = [f"{name}: {value}" for name, value in head]
            await stream.send(request_bytes(f"POST {path}", *lines, "Transfer-Encoding: chunked"))
        else:
            pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", path)]
            if version == "h2":
                options: dict[str, Any] = {"ssl": http2.context(), "server_hostname": HOST}
                h2 = await stack.enter_async_context(http2.dial(gateway.port("tls"), **options))
                await h2.settled()
                stream = h2.open([*pseudo, *head])
            else:
                h3 = await stack.enter_async_context(http3.dial(gateway.port("tls")))
                stream = h3.open([*pseudo, *head])
        yield stream


async def say(stream: Stream, content: bytes) -> None:
    await stream.send(b"%x\r\n%s\r\n" % (len(content), content) if isinstance(stream, Wire) else content)


async def finish(stream: Stream) -> None:
    if isinstance(stream, Wire):
        await stream.send(b"0\r\n\r\n")
    else:
        stream.finish()


async def call(
    gateway: Gateway, version: str, path: str, media: str, body: bytes, *fields: tuple[str, str]
) -> tuple[Head, bytes]:
    async with calling(gateway, version, path, media, *fields) as stream:
        await say(stream, body)
        await finish(stream)
        return await stream.answer()


# ---- calls ----------------------------------------------------------------------------------------------------------


@every_version
@every_media
async def test_unary(directory: Path, version: str, media: str) -> None:
    async with served(directory) as gateway:
        body = written(message(b"tide"), media)
        fields = (("x-team", "blue"), ("x-data-bin", base64.b64encode(b"\x00\xff").decode().rstrip("=")))
        head, answer = await call(gateway, version, "/test.Echo/Unary", media, body, *fields)
        assert (head.status, head.get("content-type"), head.get("x-head")) == (200, media, "blue")
        messages, trailers = read(answer, media)
        assert messages == [b"tide"]
        assert (trailers["grpc-status"], base64.b64decode(trailers["x-tail-bin"] + "==")) == ("0", b"\x00\xff")


@every_version
@every_media
async def test_a_stream_from_the_server(directory: Path, version: str, media: str) -> None:
    async with served(directory) as gateway:
        head, answer = await call(gateway, version, "/test.Echo/Down", media, written(message(b"50"), media))
        messages, trailers = read(answer, media)
        assert (head.status, messages) == (200, [b"%d" % number for number in range(50)])
        assert trailers["grpc-status"] == "0"


@every_version
@every_media
async def test_large_messages(directory: Path, version: str, media: str) -> None:
    large = random.Random(5).randbytes(700_001)
    async with served(directory) as gateway:
        _, answer = await call(gateway, version, "/test.Echo/Unary", media, written(message(large), media))
        messages, trailers = read(answer, media)
        assert (messages == [large], trailers["grpc-status"]) == (True, "0")


@every_version
@every_media
async def test_a_status_that_is_an_error(directory: Path, version: str, media: str) -> None:
    async with served(directory) as gateway:
        head, answer = await call(gateway, version, "/test.Echo/Unary", media, written(message(b"fail"), media))
        assert (head.status, head.get("content-type")) == (200, media)
        # "Trailers-Only": where there is no message, the head may have them.
        told = read(answer, media)[1] if answer else dict(head.fields)
        told = {name.lower(): value for name, value in told.items()}
        assert (told["grpc-status"], told["x-why"]) == ("9", "because")
        assert told["grpc-message"] == "no: 100 %25 not, %C3%A9"


@every_version
async def test_a_deadline(directory: Path, version: str) -> None:
    async with served(directory) as gateway:
        body = message(b"sleep")
        head, answer = await call(gateway, version, "/test.Echo/Unary", BINARY, body, ("grpc-timeout", "300m"))
        told = read(answer, BINARY)[1] if answer else {name.lower(): value for name, value in head.fields}
        assert told["grpc-status"] == "4"


@every_version
async def test_pieces_of_base64_cut_anywhere(directory: Path, version: str) -> None:
    """Two pieces with padding of their own, sent byte by byte."""
    content = message(b"twice")
    body = base64.b64encode(content[:4]) + base64.b64encode(content[4:8]) + base64.b64encode(content[8:])
    assert body.count(b"=") == 5
    async with served(directory) as gateway, calling(gateway, version, "/test.Echo/Unary", TEXT) as stream:
        for byte in body:
            await say(stream, bytes([byte]))
        await finish(stream)
        _, answer = await stream.answer()
        assert read(answer, TEXT)[0] == [b"twice"]


@every_version
@pytest.mark.parametrize("body", [b"AAAA!", b"AAAAA", b"A=AA", b"=", b"AA AA"])
async def test_what_is_no_base64(directory: Path, version: str, body: bytes) -> None:
    async with served(directory) as gateway:
        head, answer = await call(gateway, version, "/test.Echo/Unary", TEXT, body)
        assert (head.status, head.get("grpc-status"), answer) == (200, "13", b"")
        assert (head.get("grpc-message") or "").startswith("bad_body")


async def test_text_that_is_asked_for_in_binary(directory: Path) -> None:
    async with served(directory) as gateway, wire.dial(gateway.port("edge")) as client:
        fields = (f"Content-Type: {BINARY}", f"Accept: {TEXT}", "Content-Length: 9")
        await client.send(request_bytes("POST /test.Echo/Unary", *fields, body=message(b"tide")))
        head, answer = await client.answer()
        assert (head.get("content-type"), read(answer, TEXT)[0]) == (TEXT, [b"tide"])
        # And the connection goes on.
        await client.send(request_bytes("POST /test.Echo/Unary", *fields, body=message(b"ebbs")))
        assert read((await client.answer())[1], TEXT)[0] == [b"ebbs"]


@contextlib.asynccontextmanager
async def asking(directory: Path, version: str, media: str) -> AsyncIterator[tuple[H2Server, Stream]]:
    """A call, with its body still to be sent, to a server whose part the test plays."""
    async with (
        H2Server() as server,
        running(config(server.url), directory=directory) as gateway,
        calling(gateway, version, "/a.B/C", media) as stream,
    ):
        yield server, stream


# ---- what the server sees, and when ---------------------------------------------------------------------------------


@every_version
@every_media
async def test_each_part_as_soon_as_it_is_there(directory: Path, version: str, media: str) -> None:
    async with asking(directory, version, media) as (server, stream):
        await say(stream, written(message(b"ask"), media))
        asked = await server.asked()
        assert (asked["content-type"], asked["te"]) == ("application/grpc+proto", "trailers")
        assert asked.get("x-grpc-web") is None and asked.get("content-length") is None
        assert await asked.exactly(8) == message(b"ask")
        await finish(stream)
        asked.answer(200, ("content-type", "application/grpc"))
        assert (await stream.head()).status == 200
        for content in (b"first", b"second"):
            await asked.send(message(content))
            piece = await some(stream, len(written(message(content), media)))
            assert unwritten(piece, media) == message(content)
        asked.push(b"", trailers=[("grpc-status", "0")])
        rest = b"".join([piece async for piece in pieces(stream)])
        assert read(rest, media) == ([], {"grpc-status": "0"})


async def some(stream: Stream, count: int) -> bytes:
    if not isinstance(stream, Wire):
        return await stream.exactly(count)
    content = b""
    while len(content) < count:
        content += await stream.chunk()
    return content


async def pieces(stream: Stream) -> AsyncIterator[bytes]:
    if isinstance(stream, Wire):
        while chunk := await stream.chunk():
            yield chunk
    else:
        yield await stream.body()


@every_version
async def test_a_client_that_leaves_cancels_the_call(directory: Path, version: str) -> None:
    async with asking(directory, version, BINARY) as (server, stream):
        await say(stream, message(b"ask"))
        await finish(stream)
        asked = await server.asked()
        asked.answer(200, ("content-type", "application/grpc"))
        await stream.head()
        stream.reset()
        assert await asked.was_reset() == ErrorCodes.CANCEL


@every_version
async def test_a_call_that_the_server_breaks_off(directory: Path, version: str) -> None:
    """Never does a part of it look like all of it: there is no frame of trailers, and no good end."""
    async with asking(directory, version, BINARY) as (server, stream):
        await say(stream, message(b"ask"))
        await finish(stream)
        asked = await server.asked()
        asked.answer(200, ("content-type", "application/grpc"))
        await asked.send(message(b"part"))
        await stream.head()
        assert await some(stream, 9) == message(b"part")
        asked.reset(ErrorCodes.INTERNAL_ERROR)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            [piece async for piece in pieces(stream)]


@every_version
async def test_what_the_gateway_refuses(directory: Path, version: str) -> None:
    async with served(directory, limits={"body": "1KiB"}) as gateway:
        for media in (BINARY, TEXT):
            body = written(message(bytes(2000)), media)
            head, answer = await call(gateway, version, "/test.Echo/Unary", media, body)
            assert (head.status, head.get("content-type"), answer) == (200, media, b"")
            assert (head.get("grpc-status"), (head.get("grpc-message") or "")[:14]) == ("8", "body_too_large")


async def test_an_answer_that_is_none_of_grpc(directory: Path) -> None:
    async with asking(directory, "h1", TEXT) as (server, stream):
        await say(stream, written(message(b"ask"), TEXT))
        await finish(stream)
        asked = await server.asked()
        asked.answer(503, ("content-type", "application/json"))
        await asked.send(json.dumps({"error": "no"}).encode())
        asked.push(b"", end=True)
        head, body = await stream.answer()
        assert (head.status, head.get("content-type"), body) == (503, "application/json", b'{"error": "no"}')


async def test_a_server_that_speaks_it_itself(directory: Path) -> None:
    async with play() as (server, url):
        gateway_config = site({"to": "app"}, upstreams={"app": url})
        async with running(gateway_config) as gateway, wire.dial(gateway.port()) as client:
            await client.send(request_bytes("POST /a.B/C", f"Content-Type: {TEXT}", "Content-Length: 4", body=b"AAAA"))
            far = await server.connection()
            asked = await far.head()
            assert (asked.get("content-type"), await far.exactly(4)) == (TEXT, b"AAAA")
