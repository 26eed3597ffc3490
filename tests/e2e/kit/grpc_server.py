"""A server of gRPC, with the grpcio library, whose methods are of all four kinds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

__all__ = ["calls_server"]


class Handlers(grpc.GenericRpcHandler):
    """Bytes in, bytes out: messages need no schema."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        kinds = {
            "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/test.Echo/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/test.Echo/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        return kinds.get(details.method)

    async def unary(self, message: bytes, call: Any) -> bytes:
        if message.startswith(b"fail"):
            await call.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: 100 % not, é", (("x-why", "because"),))
        if message == b"sleep":
            await asyncio.sleep(60)
        sent = dict(call.invocation_metadata())
        await call.send_initial_metadata((("x-head", sent.get("x-team", "")),))
        call.set_trailing_metadata((("x-tail-bin", sent.get("x-data-bin", b"")),))
        return message

    async def down(self, message: bytes, call: Any) -> AsyncIterator[bytes]:
        for number in range(int(message)):
            yield b"%d" % number

    async def up(self, messages: AsyncIterator[bytes], call: Any) -> bytes:
        return b"".join([message async for message in messages])

    async def both(self, messages: AsyncIterator[bytes], call: Any) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message


@contextlib.asynccontextmanager
async def calls_server() -> AsyncIterator[str]:
    """Its endpoint."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)
