"""Files are replaced whole or not at all."""

import os
from pathlib import Path

import pytest

from perce_mini.errors import UserError
from perce_mini.files import check_writable, replace_file, replace_files, write_jsonl_atomic, write_text_atomic


def write_new(new):
    new.write_text("new")


def half_a_write(new):
    new.write_text("ha")
    raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, half_a_write)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_of_several_files_none_is_replaced_when_one_fails(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        replace_files({a: write_new, b: half_a_write})
    assert a.read_text() == "old" and list(tmp_path.iterdir()) == [a]
    replace_files({a: write_new, b: write_new})
    assert a.read_text() == b.read_text() == "new" and len(list(tmp_path.iterdir())) == 2


def test_new_files_are_on_the_disk_before_the_first_old_one_goes(tmp_path, monkeypatch):
    done, replace = [], os.replace

    def fsync(file):
        assert os.fstat(file).st_size == len("new")
        done.append("on the disk")

    def renamed(new, old):
        done.append("renamed")
        replace(new, old)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    replace_files({tmp_path / "a": write_new, tmp_path / "b": write_new})
    assert done == ["on the disk", "on the disk", "renamed", "renamed"]


def test_what_torch_says_of_a_full_disk_is_an_oserror(tmp_path):
    def full(new):
        raise RuntimeError("[enforce fail at inline_container.cc] . writing failed\nframe #0: long trace")

    with pytest.raises(OSError, match=r"cannot write .*x, is the disk full.*writing failed.$"):
        replace_file(tmp_path / "x", full)


@pytest.mark.parametrize("kind", ["folder", "device", "below a file", "long name"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    (tmp_path / "file").write_text("old")
    path = {"folder": tmp_path, "device": Path(os.devnull), "below a file": tmp_path / "file" / "x"}.get(kind)
    path = path or tmp_path / ("n" * 255)  # with .new it is too long a name
    with pytest.raises(UserError, match=str(path)):
        check_writable(path)
    with pytest.raises(UserError):
        write_text_atomic(path, "x")
    assert (tmp_path / "file").read_text() == "old" and not Path(os.devnull).is_file()


def test_text_is_utf_8_and_rows_are_lines(tmp_path):
    write_text_atomic(tmp_path / "new" / "t", "né")
    assert (tmp_path / "new" / "t").read_bytes() == "né".encode()
    write_jsonl_atomic(tmp_path / "l", [{"a": "é\n"}, {}])
    assert (tmp_path / "l").read_text().count("\n") == 2
