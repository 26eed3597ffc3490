"""PostgreSQL and Redis behind the gateway, used by their own programs."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.programs import LIMIT, found, postgres, redis, run
from tests.e2e.test_tcp import carrier, config
from tidegate.testing import Gateway

ROWS = 200_000


@pytest.fixture(scope="module")
def database() -> Iterator[Gateway]:
    """A gateway before PostgreSQL."""
    with (
        postgres() as directory,
        Gateway(config({"app": [f"unix:{directory}/.s.PGSQL.5432"]}, {"edge": carrier(idle="1h")})) as gateway,
    ):
        yield gateway


def psql(gateway: Gateway, *arguments: str) -> str:
    command = [found("psql", "postgresql-client"), "-h", "127.0.0.1", "-p", str(gateway.port()), "-U", "postgres"]
    return run(*command, "-X", "-At", "-v", "ON_ERROR_STOP=1", *arguments, PGSSLMODE="prefer")


def test_postgresql_answers(database: Gateway) -> None:
    assert psql(database, "-c", "select 6 * 7") == "42\n"


def test_postgresql_takes_and_gives_many_rows(database: Gateway, tmp_path: Path) -> None:
    rows = "".join(f"{number}\t{number * number}\n" for number in range(ROWS))
    (tmp_path / "rows.tsv").write_text(rows)
    psql(database, "-c", "create table if not exists squares (number bigint, square bigint)")
    psql(database, "-c", "truncate squares", "-c", f"\\copy squares from '{tmp_path}/rows.tsv'")
    psql(database, "-c", f"\\copy squares to '{tmp_path}/back.tsv'")
    assert (tmp_path / "back.tsv").read_text() == rows


def test_postgresql_with_many_clients(database: Gateway) -> None:
    where = ["-h", "127.0.0.1", "-p", str(database.port()), "-U", "postgres", "postgres"]
    pgbench = found("pgbench", "postgresql-contrib")
    run(pgbench, "-i", "-q", *where)
    said = run(pgbench, "-n", "-c", "8", "-t", "50", *where)
    assert "number of transactions actually processed: 400/400" in said


def test_postgresql_is_told_to_stop_over_a_connection_of_its_own(database: Gateway) -> None:
    command = [found("psql", "postgresql-client"), "-h", "127.0.0.1", "-p", str(database.port()), "-U", "postgres"]
    asking = [*command, "-X", "-At", "-c", "select 'asked'", "-c", f"select pg_sleep({LIMIT})"]
    with subprocess.Popen(asking, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "asked\n"
        while psql(database, "-c", "select count(*) from pg_stat_activity where query like '%pg_sleep(6%'") < "2\n":
            pass  # the query has not come yet; the one who asks counts as well
        process.send_signal(signal.SIGINT)
        assert "canceling statement due to user request" in process.stderr.read()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def cache(directory: Path) -> Iterator[Gateway]:
    """A gateway before Redis, which speaks TLS on a port of its own too: in clear text, with TLS that the gateway ends,
    with TLS that goes through by its name, and with TLS that the gateway begins."""
    authority = Authority(directory)
    own, site = authority.issue("redis", "cache.example.com"), authority.issue("site", "gate.test")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    files = ["--tls-cert-file", own["cert"], "--tls-key-file", own["key"], "--tls-ca-cert-file", authority.file]
    with redis(directory, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", *files) as path:
        listeners = {
            "edge": carrier("clear"),
            "ended": carrier("clear", listener={"tls": {"certificates": [site]}}),
            "begun": carrier("begun"),
            "named": carrier(None, sni={"cache.example.com": "secure"}),
        }
        begun = {"endpoints": [f"tls://127.0.0.1:{port}"]}
        tls = {"ca": authority.file, "server_name": "cache.example.com"}
        upstreams = {
            "clear": [f"unix:{path}"], "secure": [f"tcp://127.0.0.1:{port}"], "begun": {**begun, "tls": tls},
        }  # fmt: skip
        with Gateway(config(upstreams, listeners), directory=directory) as gateway:
            yield gateway


def redis_cli(gateway: Gateway, listener: str, *command: str, name: str = "") -> str:
    tls = ["--tls", "--cacert", str(gateway.directory / "ca.pem"), "--sni", name] if name else []
    port = str(gateway.port(listener))
    return run(found("redis-cli", "redis-tools"), "-h", "127.0.0.1", "-p", port, *tls, *command)


@pytest.mark.parametrize(
    ("listener", "name"), [("edge", ""), ("begun", ""), ("ended", "gate.test"), ("named", "cache.example.com")]
)
def test_redis_answers(cache: Gateway, listener: str, name: str) -> None:
    block = "x" * 100_000
    assert redis_cli(cache, listener, "set", f"key-{listener}", block, name=name) == "OK\n"
    assert redis_cli(cache, listener, "get", f"key-{listener}", name=name) == f"{block}\n"


def test_redis_under_load(cache: Gateway) -> None:
    benchmark = found("redis-benchmark", "redis-tools")
    where = ["-h", "127.0.0.1", "-p", str(cache.port("edge"))]
    said = run(benchmark, *where, "-c", "20", "-n", "4000", "-P", "8", "-t", "set,get,lpush", "--csv")
    assert said.count("\n") >= 4 and "error" not in said.lower()


def test_redis_subscribers_hear(cache: Gateway) -> None:
    client = found("redis-cli", "redis-tools")
    command = [client, "-h", "127.0.0.1", "-p", str(cache.port("edge")), "subscribe", "tides"]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        subscribers = []
        for _ in range(5):
            subscriber = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(subscriber.terminate)
            assert subscriber.stdout
            assert [subscriber.stdout.readline() for _ in range(3)] == ["subscribe\n", "tides\n", "1\n"]
            subscribers.append(subscriber.stdout)
        assert redis_cli(cache, "edge", "publish", "tides", "high") == "5\n"
        heard = pool.map(lambda stream: [stream.readline() for _ in range(3)], subscribers)
        assert list(heard) == [["message\n", "tides\n", "high\n"]] * 5
