"""The server that the attackers' requests are for, as a program of its own: it prints its port, and serves until its
standard input ends."""

import asyncio
import json
import sys

from tests.e2e.kit.origin import Origin


async def main() -> None:
    async with Origin() as origin:
        print(json.dumps({"port": origin.port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
