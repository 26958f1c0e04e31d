from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.files import (
    TakenError,
    cache_folder,
    clear_drafts,
    contents,
    free_bytes,
    intended,
    is_disk_full,
    link_files,
    size,
    whole_folder,
    writable,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_the_block_ends_well(tmp_path):
    out = tmp_path / "a" / "out"
    with whole_folder(out) as draft:
        (draft / "x").write_text("1")
        assert not out.exists()
        assert draft.parent == out.parent
    assert names(out) == ["x"]
    assert names(out.parent) == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_vanishes_when_the_block_fails(tmp_path, stop):
    with pytest.raises(stop), whole_folder(tmp_path / "out") as draft:
        (draft / "x").write_text("1")
        raise stop
    assert names(tmp_path) == []


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"), whole_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["out"]


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(TakenError), whole_folder(out) as draft:
        (draft / "x").write_text("mine")
        out.mkdir()
        (out / "x").write_text("theirs")
    assert (out / "x").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_text_is_written_whole(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assert write_text(path, "中文\n") == path
    assert path.read_bytes() == "中文\n".encode()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(path.parent) == ["b.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_text_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_text(tmp_path / "b.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["b.txt"]
    (tmp_path / "folder" / "x").mkdir(parents=True)
    with pytest.raises(OSError):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["b.txt", "folder"]


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(UserError, match="cannot be created") as caught:
            writable(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_named(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match="is not writable"):
        writable(tmp_path)
    tmp_path.chmod(0o755)


def test_linked_files_share_inodes(tmp_path):
    files = [write_text(tmp_path / "from" / name, name) for name in ("a", "b")]
    target = tmp_path / "to"
    target.mkdir()
    (target / "a").write_text("older")
    assert link_files(files, target)
    assert names(target) == ["a", "b"]
    for file in files:
        assert (target / file.name).samefile(file)
        assert file.stat().st_nlink == 2


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_files_are_copied_where_links_are_refused(tmp_path, monkeypatch, code):
    def refuse(source, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    file = write_text(tmp_path / "from" / "a", "text")
    assert not link_files([file], tmp_path / "to")
    assert (tmp_path / "to" / "a").read_text() == "text"
    assert not (tmp_path / "to" / "a").samefile(file)


def test_other_failures_of_a_link_are_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        link_files([tmp_path / "none"], tmp_path / "to")


def test_linking_a_file_to_itself_keeps_it(tmp_path):
    file = write_text(tmp_path / "a", "text")
    link_files([file], tmp_path)
    assert file.read_text() == "text"


def test_size_counts_everything_below(tmp_path):
    write_text(tmp_path / "a", "12")
    write_text(tmp_path / "b" / "c", "345")
    assert size(tmp_path) == 5


def test_what_vanishes_while_it_is_counted_is_left_out(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "12")
    there = [(str(tmp_path), [], ["a", "gone"])]  # as a training leaves it that removes a checkpoint
    monkeypatch.setattr(os, "walk", lambda folder: iter(there))
    (tmp_path / "loop").symlink_to("loop")
    there[0][2].append("loop")
    assert size(tmp_path) == 2 and [each.bytes for each in contents([tmp_path]).values()] == [2]


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FULL = [
    OSError(errno.ENOSPC, "x"),
    OSError(errno.EDQUOT, "x"),
    RuntimeError("I/O error: No space left on device (os error 28)"),
    RuntimeError("Error: Disk quota exceeded"),
    RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 2752 vs 2646"),
    RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    caused(ValueError("saving failed"), caused(RuntimeError("inner"), OSError(errno.ENOSPC, "x"))),
]


@pytest.mark.parametrize("error", FULL, ids=range(len(FULL)))
def test_a_full_disk_is_recognised(error):
    assert is_disk_full(error)


def test_a_full_disk_is_recognised_while_another_error_was_handled():
    try:
        try:
            raise OSError(errno.ENOSPC, "x")
        except OSError:
            raise ValueError("while saving")  # noqa: B904
    except ValueError as error:
        assert is_disk_full(error)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "denied"), ValueError("x"), caused(ValueError("x"), KeyError("y"))])
def test_other_errors_are_no_full_disk(error):
    assert not is_disk_full(error)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MLOPS_LLM_CACHE": "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/mlops_llm"),
        ({"HOME": "/h"}, "/h/.cache/mlops_llm"),
    ],
)
def test_cache_folder(monkeypatch, variables, expected):
    for name in ("MLOPS_LLM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_drafts_are_cleared_of_this_output_alone_and_not_while_they_are_filled(tmp_path):
    own, other = tmp_path / ".x.k3j2abcd", tmp_path / ".x.v2.k3j2abcd"
    for each in (own, other, tmp_path / ".x.not-a-draft"):
        each.mkdir()
    (own / "file").touch()
    assert clear_drafts(tmp_path / "x") == [own] and not own.exists() and other.exists()
    assert clear_drafts(tmp_path / "x.v2") == [other]
    with whole_folder(tmp_path / "new") as draft:
        assert clear_drafts(tmp_path / "new") == [] and draft.is_dir(), "this process fills it"
        assert intended(draft) == tmp_path / "new" == intended(tmp_path / "new")
    assert (tmp_path / "new").is_dir() and [each.name for each in tmp_path.glob(".*")] == [".x.not-a-draft"]
