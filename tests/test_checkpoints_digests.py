"""A digest is remembered only as long as nothing says that the files changed."""

import os
import time
from pathlib import Path

import pytest

from qforensics.checkpoints import _digests


class Reader:
    """Digests are the file's text; counts how often it is read."""

    def __init__(self, file: Path) -> None:
        self.file, self.times = file, 0

    def read(self) -> str:
        self.times += 1
        return self.file.read_text()

    def digest(self, kind: str = "a") -> str:
        return _digests.remembered(kind, [self.file], self.read)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    file = tmp_path / "weights"
    file.write_text("one")
    return Reader(file)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute after every write of the test."""
    now = time.time_ns
    monkeypatch.setattr(_digests.time, "time_ns", lambda: now() + 60_000_000_000)


@pytest.mark.usefixtures("later")
def test_the_same_files_are_read_once_per_kind(reader: Reader) -> None:
    assert [reader.digest() for _ in range(3)] == ["one"] * 3
    assert reader.times == 1
    assert reader.digest("b") == "one"
    assert reader.times == 2


@pytest.mark.usefixtures("later")
def test_a_write_is_seen_even_where_size_and_mtime_stay(reader: Reader) -> None:
    assert reader.digest() == "one"
    stat = os.stat(reader.file)
    reader.file.write_text("two")
    os.utime(reader.file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert reader.file.stat().st_mtime_ns == stat.st_mtime_ns
    assert reader.digest() == "two"


@pytest.mark.usefixtures("later")
def test_another_file_under_the_name_is_seen(reader: Reader) -> None:
    assert reader.digest() == "one"
    other = reader.file.with_name("other")
    other.write_text("two")
    other.replace(reader.file)
    assert reader.digest() == "two"


@pytest.mark.usefixtures("later")
def test_a_file_that_changes_while_it_is_read_is_read_again(reader: Reader) -> None:
    def read_and_write() -> str:
        text = reader.read()
        reader.file.write_text("longer")
        return text

    assert _digests.remembered("a", [reader.file], read_and_write) == "one"
    assert reader.digest() == "longer"


def test_a_file_of_the_last_moment_is_read_again(reader: Reader) -> None:
    assert (reader.digest(), reader.digest(), reader.times) == ("one", "one", 2)


@pytest.mark.usefixtures("later")
def test_a_missing_file_is_left_to_the_reader(reader: Reader) -> None:
    reader.file.unlink()
    with pytest.raises(FileNotFoundError):
        reader.digest()
