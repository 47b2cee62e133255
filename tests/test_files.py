"""Files are written whole or not at all, and look like any other file of the user's."""

import os
import stat
import threading

import pytest

from flowmatch.core.files import replace_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_and_no_other_left(path):
    for content in (b"one", b"two"):
        replace_file(str(path), content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_permissions_that_the_process_gives(path, mask):
    before = os.umask(mask)
    try:
        replace_file(path, b"")
    finally:
        os.umask(before)
    assert mode_of(path) == 0o666 & ~mask


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_an_older_file_keeps_its_permissions(path):
    path.write_bytes(b"older")
    path.chmod(0o640)
    replace_file(path, b"newer")
    assert mode_of(path) == 0o640


def test_the_umask_is_left_alone(path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("another thread may write a file meanwhile"))
    replace_file(path, b"")


@pytest.mark.parametrize("where", ["no/such/folder", "file/below", "folder"])
def test_a_path_that_cannot_be_written_is_refused_by_name(tmp_path, where):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"cannot write to .*" + where):
        replace_file(tmp_path / where, b"content")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_half_way_leaves_the_older_file(path, monkeypatch, step):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    replace_file(path, b"older")
    monkeypatch.setattr(os, step, disk_full)
    with pytest.raises(ValueError, match=r"cannot write to .*No space left on device"):
        replace_file(path, b"newer")
    assert path.read_bytes() == b"older"
    assert os.listdir(path.parent) == ["file"]


def test_writers_in_threads_do_not_mix_their_contents(path):
    contents = [bytes([i]) * 100_000 for i in range(4)]
    threads = [threading.Thread(target=replace_file, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert os.listdir(path.parent) == ["file"]
