"""Names that somebody with fewer rights may have had a hand in."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authmilter.safe_files import UnsafeError, locate
from tests.store.servers import is_root

HE = 65534
needs_root = pytest.mark.skipif(not is_root(), reason="only root can be somebody else")


@pytest.fixture
def ours() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="authmilter-safe-"))
    (folder / "deep").mkdir()
    (folder / "deep/file").write_text("ours")
    (folder / "his").mkdir()
    (folder / "his/inner").mkdir()
    (folder / "his/inner/file").write_text("his")
    if is_root():
        for path in (folder / "his", folder / "his/inner", folder / "his/inner/file"):
            os.chown(path, HE, HE)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def read(path: Path) -> str:
    with locate(path) as place, open(place.open()) as file:
        return file.read()


def link(path: Path, target: str, *, owner: int = 0) -> None:
    path.symlink_to(target)
    if is_root():
        os.lchown(path, owner, owner)


def test_a_file(ours: Path) -> None:
    assert read(ours / "deep/file") == "ours"
    assert read(ours / "his/inner/file") == "his"


@pytest.mark.parametrize("target", ["deep/file", "{}/deep/file", "./deep/../deep/file", "deep/../his/../deep/file"])
def test_links_of_ours_are_followed(ours: Path, target: str) -> None:
    link(ours / "link", target.format(ours))
    assert read(ours / "link") == "ours"
    with locate(ours / "link") as place:
        assert place.path == ours / "deep/file"


def test_the_last_link_may_be_left_as_it_is(ours: Path) -> None:
    link(ours / "link", "deep/file")
    with locate(ours / "link", follow=False) as place:
        assert place.path == ours / "link"
        with pytest.raises(OSError, match="Too many levels"):
            place.open()


def test_links_to_folders_are_followed(ours: Path) -> None:
    link(ours / "link", "deep")
    assert read(ours / "link/file") == "ours"


def test_a_link_to_itself_ends(ours: Path) -> None:
    link(ours / "link", "link")
    with pytest.raises(UnsafeError, match="too many links"):
        read(ours / "link")


@needs_root
@pytest.mark.parametrize(
    ("name", "owner"), [("his/link", HE), ("his/link", 0), ("link", HE)], ids=["his", "ours in his folder", "his in ours"]
)  # fmt: skip
def test_links_of_others_are_not_followed(ours: Path, name: str, owner: int) -> None:
    link(ours / name, str(ours / "deep/file"), owner=owner)
    with pytest.raises(UnsafeError, match="is a link that others"):
        read(ours / name)
    link(ours / f"{name}2", str(ours / "deep"), owner=owner)
    with pytest.raises(UnsafeError, match="is a link that others"):
        read(ours / f"{name}2/file")


@needs_root
def test_a_file_of_ours_under_another_name_of_his(ours: Path) -> None:
    os.link(ours / "deep/file", ours / "his/file")
    with pytest.raises(UnsafeError, match="another name"):
        read(ours / "his/file")
    (ours / "deep/file").unlink()
    assert read(ours / "his/file") == "ours", "with one name only we can have put it there"


@needs_root
def test_a_file_of_a_third_in_his_folder(ours: Path) -> None:
    (ours / "his/file").write_text("")
    os.chown(ours / "his/file", HE - 1, HE - 1)
    with pytest.raises(UnsafeError, match="belongs to another"):
        read(ours / "his/file")


@needs_root
def test_a_folder_of_ours_in_his(ours: Path) -> None:
    (ours / "deep").rename(ours / "his/deep")
    with pytest.raises(UnsafeError, match="belongs to another"):
        read(ours / "his/deep/file")


def test_a_second_name_in_a_folder_where_anybody_may_write(ours: Path) -> None:
    (ours / "deep").chmod(0o1777)
    os.link(ours / "deep/file", ours / "deep/second")
    with pytest.raises(UnsafeError, match="another name"):
        read(ours / "deep/second")
    (ours / "deep").chmod(0o755)
    assert read(ours / "deep/second") == "ours"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo], ids=["a folder", "a FIFO without a writer"])
def test_what_is_no_file(ours: Path, make: Callable[[Path], None]) -> None:
    make(ours / "x")
    with pytest.raises(UnsafeError, match="no regular file"):
        read(ours / "x")


def test_errors_name_the_file(ours: Path) -> None:
    for name in ("no", "no/file", "deep/file/no"):
        with pytest.raises(OSError, match=r"No such file|Not a directory") as error:
            read(ours / name)
        assert error.value.filename == str(ours / name)


def test_folders_are_made_for_whom_they_lie_with(ours: Path) -> None:
    with locate(ours / "his/a/b/file", make=True) as place:
        assert place.status() is None
        assert os.fstat(place.folder).st_mode & 0o777 == 0o755
        assert os.fstat(place.folder).st_uid == (ours / "his").stat().st_uid


def test_no_handle_is_left(ours: Path) -> None:
    link(ours / "link", "link")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("link", "no/file", "deep", "deep/file/x"):
        with pytest.raises(OSError):  # noqa: PT011  any of them
            read(ours / name)
    assert len(os.listdir("/proc/self/fd")) == before
