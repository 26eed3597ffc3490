"""`tidegate demo`: a gateway before a small upstream of its own, and a page where a person can see it work."""

import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from tidegate import gateway
from tidegate.admin import AppServer, open_socket
from tidegate.demo.upstream import demo_app

__all__ = ["run_demo"]


async def run_demo(port: int, say: Callable[[str], None], ready_file: Path | None = None) -> int:
    """Serve the demo on 127.0.0.1:`port` until a signal ends it; returns the exit code. Raises TidegateError.

    `say` is given the lines that tell a person where to look.
    """
    configuration = files("tidegate.demo").joinpath("demo.yaml")
    # A directory that only this user may enter: the upstream trusts whoever reaches its socket.
    with tempfile.TemporaryDirectory(prefix="tidegate-demo-") as directory, as_file(configuration) as path:
        socket = f"{directory}/upstream.sock"
        os.environ.update(TIDEGATE_DEMO_SOCKET=socket, TIDEGATE_DEMO_PORT=str(port))
        async with AppServer(demo_app(), open_socket(f"unix:{socket}")):
            return await gateway.serve(path, ready_file, lambda status: say(_welcome(status, path)))


def _welcome(status: Mapping[str, Any], path: Path) -> str:
    edge = status["listeners"][0]["addresses"][0]
    rows = {
        "the page": f"http://{edge}/",
        "echo": f"ws://{edge}/echo",
        "chat room": f"ws://{edge}/chat?name=you",
        "plain HTTP": f"http://{edge}/hello",
        "events": f"http://{edge}/events",
        "metrics": f"http://{status['admin']}/metrics",
        "configured by": str(path),
    }
    table = "\n".join(f"  {name:<14} {value}" for name, value in rows.items())
    return f"\nThe Tidegate demo runs. Ctrl-C drains and ends it.\n\n{table}\n"
