"""Files are replaced completely or not at all, and only regular files are read."""

import hashlib
import os
from pathlib import Path

import pytest

from perce_mini.runtime import files
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import check_writable, replace_file, write_text_atomic

TORCH = "[enforce fail at inline_container.cc] . writing failed\nframe #0: a long trace"


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError(TORCH)])
def test_on_a_full_disk_the_old_file_stays_and_the_error_is_one_line(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")

    def half_a_write(new):
        new.write_text("ha")
        raise error

    with pytest.raises(OSError, match=f"{path}.*(No space left|failed.)") as caught:
        replace_file(path, half_a_write)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_on_the_disk_before_the_old_one_goes(tmp_path, monkeypatch):
    calls, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(os.fstat(file).st_size))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("rename") or replace(*names))
    replace_file(tmp_path / "a", lambda new: new.write_text("new"))
    assert calls == [len("new"), "rename"] and (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("kind", ["folder", "device", "below a file", "long name"])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path, kind):
    (tmp_path / "file").write_text("old")
    paths = {"folder": tmp_path, "device": Path(os.devnull), "below a file": tmp_path / "file/x"}
    path = paths.get(kind, tmp_path / ("n" * 255))  # the temporary name would be too long
    for write in [check_writable, lambda path: write_text_atomic(path, "x")]:
        with pytest.raises(UserError, match=str(path)):
            write(path)
    check_writable(tmp_path / "file")  # does not change the file
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_two_processes_do_not_share_a_temporary_name(tmp_path, monkeypatch):
    mine = files.new_name(tmp_path / "x")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert files.new_name(tmp_path / "x") != mine


@pytest.mark.parametrize("read", [files.open_regular, files.read_text, files.read_json])
@pytest.mark.parametrize("kind", ["missing", "folder", "FIFO", "device"])
def test_only_regular_files_are_read(tmp_path, kind, read):
    """Reading /dev/zero never ends, and a FIFO without a writer blocks."""
    path = tmp_path / "x"
    make = {"folder": Path.mkdir, "FIFO": os.mkfifo}
    make |= {"missing": str, "device": lambda path: path.symlink_to("/dev/zero")}
    make[kind](path)
    with pytest.raises(UserError, match=f"^{path}"):
        read(path)


def test_text_and_json_are_read_or_the_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"é": 1}'.encode())  # with a byte order mark
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert files.read_text(path) == '{"é": 1}' and files.read_json(path) == {"é": 1}
    with monkeypatch.context() as patch, pytest.raises(UserError, match="f.json: larger than 8 b"):
        patch.setattr(files, "MAX_BYTES", 8)
        files.read_text(path)
    for content in [b"\xff", b"{", b"[" * 100_000, b"9" * 5000]:
        path.write_bytes(content)
        with pytest.raises(UserError, match="f.json: not ") as caught:
            files.read_json(path)
        assert "\n" not in str(caught.value)
