"""A change of the files is seen however it is made, and nothing else is."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidegate.control import sources
from tidegate.control.sources import FileWatch, fingerprint, watched_directories


class Watched:
    """A running watch: what it yields comes out of `next`."""

    def __init__(self, *files: Path) -> None:
        self.watch = FileWatch()
        self.watch.expect(fingerprint(files))
        self.seen: asyncio.Queue[list[Path]] = asyncio.Queue()

    async def run(self) -> None:
        async for changed in self.watch.changes():
            self.seen.put_nowait(changed)

    async def next(self) -> list[Path]:
        return await asyncio.wait_for(self.seen.get(), 10)


@asynccontextmanager
async def watching(*files: Path) -> AsyncIterator[Watched]:
    watched = Watched(*files)
    task = asyncio.create_task(watched.run())
    await asyncio.sleep(0.05)
    yield watched
    task.cancel()
    await asyncio.wait([task])


def replace(path: Path, text: str) -> None:
    """As editors and certificate tools do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tidegate.yaml"
    path.write_text("one")
    return path


async def test_writing_is_seen(file: Path) -> None:
    async with watching(file) as watched:
        file.write_text("two")
        assert await watched.next() == [file]


async def test_a_rename_over_it_is_seen_again_and_again(file: Path) -> None:
    async with watching(file) as watched:
        for text in ("two", "three", "four"):
            replace(file, text)
            assert await watched.next() == [file]


async def test_kubernetes_swaps_a_link(tmp_path: Path) -> None:
    for version in ("1", "2", "3"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tidegate.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "tidegate.yaml").symlink_to("..data/tidegate.yaml")
    async with watching(tmp_path / "tidegate.yaml") as watched:
        for version in ("2", "3"):
            (tmp_path / "..data_tmp").symlink_to(version)
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            assert await watched.next() == [tmp_path / "tidegate.yaml"]


async def test_a_certificate_behind_a_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "live").mkdir()
    (tmp_path / "archive/cert1.pem").write_text("one")
    link = tmp_path / "live/cert.pem"
    link.symlink_to("../archive/cert1.pem")
    async with watching(link) as watched:
        (tmp_path / "archive/cert1.pem").write_text("written in place")
        assert await watched.next() == [link]


async def test_the_same_content_is_no_change(file: Path) -> None:
    async with watching(file) as watched:
        os.utime(file)
        replace(file, "one")
        (file.parent / "other").write_text("x")
        file.write_text("two")
        assert await watched.next() == [file]
        assert watched.seen.empty()


async def test_a_change_before_the_watch_began_is_not_lost(file: Path) -> None:
    watched = Watched(file)
    file.write_text("two")
    task = asyncio.create_task(watched.run())
    assert await watched.next() == [file]
    task.cancel()
    await asyncio.wait([task])


async def test_other_files_are_watched_after_expect(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "deep" / "cert.pem"
    other.parent.mkdir()
    other.write_text("one")
    async with watching(file) as watched:
        watched.watch.expect(fingerprint([file, other]))
        await asyncio.sleep(0.05)
        other.write_text("two")
        assert await watched.next() == [other]


async def test_a_directory_that_goes_and_comes_back_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "conf" / "tidegate.yaml"
    file.parent.mkdir()
    file.write_text("one")
    async with watching(file) as watched:
        file.unlink()
        file.parent.rmdir()
        assert await watched.next() == [file]
        file.parent.mkdir()
        file.write_text("two")
        assert await watched.next() == [file]


async def test_polling_takes_over_when_the_kernel_refuses(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sources.watchfiles.awatch

    def awatch(*paths: Path, force_polling: bool, **options: object) -> object:
        if not force_polling:
            raise OSError(28, "no space left on device")
        return real(*paths, force_polling=True, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sources.watchfiles, "awatch", awatch)
    async with watching(file) as watched:
        file.write_text("two")
        assert await watched.next() == [file]


def test_every_link_on_the_way_is_watched(tmp_path: Path) -> None:
    (tmp_path / "a/real").mkdir(parents=True)
    (tmp_path / "a/real/x.pem").write_text("x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/link").symlink_to(tmp_path / "a/real")
    assert watched_directories(tmp_path / "b/link/x.pem") >= {tmp_path / "b/link", tmp_path / "b", tmp_path / "a/real"}


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert watched_directories(tmp_path / "a") == {tmp_path}


def test_a_missing_directory_is_watched_for_from_above(tmp_path: Path) -> None:
    assert watched_directories(tmp_path / "not/there/x.pem") == {tmp_path}
