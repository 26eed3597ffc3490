"""h2spec, the conformance suite for HTTP/2 servers, against a listener over TLS. Runs where `h2spec` is on the path
(`go install github.com/summerwind/h2spec/cmd/h2spec@latest`).

One case needs streams that stay open, because it sends more requests than the listener takes and expects one to be
refused; it runs against a server that never answers.
"""

import asyncio
import re
import shutil
from pathlib import Path

import pytest
import trustme

from tests.e2e.kit.http2 import HOST
from tests.e2e.kit.origin import Origin
from tests.e2e.kit.peers import play, running
from tests.e2e.kit.sites import LOOPBACK, route, site

H2SPEC = shutil.which("h2spec")
EXCEEDING = "1: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded"

pytestmark = pytest.mark.skipif(H2SPEC is None, reason="h2spec is not installed")


async def verdict(port: int, path: str, *cases: str) -> tuple[int, int, str]:
    """How many passed and failed, and all that was said."""
    assert H2SPEC
    options = ["-h", "127.0.0.1", "-p", str(port), "-P", path, "-t", "-k", "-o", "3"]
    pipe = asyncio.subprocess.PIPE
    run = await asyncio.create_subprocess_exec(H2SPEC, *options, *cases, stdout=pipe, stderr=pipe)
    said = (await run.communicate())[0].decode()
    found = re.search(r"(\d+) passed, (\d+) skipped, (\d+) failed", said)
    assert found, said
    return int(found[1]), int(found[3]), said


@pytest.mark.timeout(300)
async def test_every_case_that_applies(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert(HOST, "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "site.pem"))
    tls = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}
    async with play() as (silent, silent_url), Origin() as origin:
        config = site(
            route("silent", "silent"),
            {"match": {"path": {"prefix": "/"}}, "to": "origin"},
            listeners={"edge": {"bind": LOOPBACK, "tls": tls}},
            upstreams={"silent": silent_url, "origin": origin.url},
        )
        async with running(config, directory=tmp_path) as gateway:
            passed, _, said = await verdict(gateway.port(), "/?size=5")
            assert set(re.findall(r"^ *× (.+)$", said, re.MULTILINE)) <= {EXCEEDING}, said
            assert passed >= 145 - 1, said
            assert (await verdict(gateway.port(), "/silent", "http2/5.1.2"))[:2] == (1, 0)
        assert origin.requests > 0 and silent.connections > 0
