"""What the process owes the system."""

import asyncio
import resource
import signal
from collections.abc import Iterator

import pytest

from tidegate.process import Stopping, raise_file_limit


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_of_files_is_raised_to_the_hard_one(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    assert raise_file_limit() == limits[1]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limits[1]


def test_where_it_may_not_be_raised_it_stands(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "not permitted")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit() == limits[0]
    monkeypatch.undo()


async def test_a_hangup_before_anybody_wants_to_know_is_not_lost() -> None:
    calls: list[int] = []
    with Stopping() as stopping:
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0.01)  # the loop reads signals from a pipe
        stopping.on_hangup(lambda: calls.append(1))
        assert calls == [1]
        stopping.on_hangup(lambda: calls.append(2))
        assert calls == [1], "only once"
