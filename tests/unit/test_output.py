from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelpack import output
from modelpack.errors import InputError
from modelpack.output import check_writable, locked, publish, scratch, write_text

Tree = dict[str, bytes | None]


def tree(root: Path) -> Tree:
    """Content of every file below a directory; None for directories."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    """What a verb made, in its scratch directory: two files and a directory."""
    work = tmp_path / "work"
    write(work / "saved_model/saved_model.pb", "graph")
    write(work / "saved_model/variables/index", "index")
    (work / "saved_model" / "assets").mkdir()
    return {
        "model.onnx": write(work / "a.onnx", "onnx"),
        "sub/deep/golden.npz": write(work / "g.npz", "golden"),
        "saved_model": work / "saved_model",
        "modelpack.yaml": write(work / "m.yaml", "manifest"),
    }


MADE: Tree = {
    "model.onnx": b"onnx",
    "modelpack.yaml": b"manifest",
    "saved_model": None,
    "saved_model/assets": None,
    "saved_model/saved_model.pb": b"graph",
    "saved_model/variables": None,
    "saved_model/variables/index": b"index",
    "sub": None,
    "sub/deep": None,
    "sub/deep/golden.npz": b"golden",
}


def test_a_new_directory_gets_everything(tmp_path: Path, made: dict[str, Path]) -> None:
    root = tmp_path / "place" / "out"
    root.parent.mkdir()
    publish(root, made)
    assert tree(root) == MADE
    assert list(root.parent.iterdir()) == [root]


def test_what_was_made_is_copied_and_not_moved(tmp_path: Path, made: dict[str, Path]) -> None:
    publish(tmp_path / "out", made)
    assert all(path.exists() for path in made.values())


def test_a_directory_keeps_what_is_not_replaced(tmp_path: Path, made: dict[str, Path]) -> None:
    root = tmp_path / "out"
    write(root / "notes.txt", "mine")
    write(root / "sub/other", "mine")
    publish(root, made)
    assert tree(root) == {**MADE, "notes.txt": b"mine", "sub/other": b"mine"}


def test_files_and_directories_are_replaced_as_a_whole(
    tmp_path: Path, made: dict[str, Path]
) -> None:
    root = tmp_path / "out"
    write(root / "model.onnx/was/a/directory", "old")
    write(root / "saved_model/stale.pb", "old")
    write(root / "modelpack.yaml", "old")
    publish(root, made)
    assert tree(root) == MADE


def test_publishing_twice_changes_nothing(tmp_path: Path, made: dict[str, Path]) -> None:
    publish(tmp_path / "out", made)
    publish(tmp_path / "out", made)
    assert tree(tmp_path / "out") == MADE


def test_a_link_at_a_name_is_replaced_and_its_target_is_left_alone(
    tmp_path: Path, made: dict[str, Path]
) -> None:
    root = tmp_path / "out"
    victim = write(tmp_path / "victim", "precious")
    root.mkdir()
    (root / "model.onnx").symlink_to(victim)
    publish(root, made)
    assert victim.read_text() == "precious"
    assert not (root / "model.onnx").is_symlink()
    assert tree(root) == MADE


@pytest.mark.parametrize("first", ["model.onnx", "saved_model"])
def test_when_a_name_cannot_be_taken_everything_is_as_before(
    tmp_path: Path, made: dict[str, Path], first: str
) -> None:
    root = tmp_path / "out"
    write(root / "model.onnx", "old onnx")
    write(root / "saved_model/saved_model.pb", "old graph")
    write(root / "blocked", "a file where a directory is needed")
    before = tree(root)
    items = {first: made[first], "new": made["model.onnx"], "blocked/x": made["model.onnx"]}
    with pytest.raises(InputError, match="cannot write"):
        publish(root, items)
    assert tree(root) == before


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
def test_a_rename_that_fails_at_any_point_undoes_those_before(
    tmp_path: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    root = tmp_path / "out"
    write(root / "model.onnx", "old onnx")
    write(root / "sub/deep/golden.npz", "old golden")
    write(root / "saved_model/old.pb", "old graph")
    before = tree(root)
    real, calls = Path.rename, iter(range(1, 99))

    def rename(self: Path, target: Path) -> Path:
        if next(calls) == failing:
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(InputError, match="Input/output error"):
        publish(root, made)
    monkeypatch.undo()
    assert tree(root) == before


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_copy_that_is_cut_short_leaves_nothing(
    tmp_path: Path,
    made: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    existing: bool,
    error: BaseException,
) -> None:
    root = tmp_path / "place" / "out"
    write(root / "model.onnx", "old") if existing else root.parent.mkdir()
    before = tree(root.parent)
    real, calls = output.shutil.copyfileobj, iter(range(99))

    def copy(reader: object, writer: object, length: int) -> None:
        if next(calls) == 2:
            raise error
        real(reader, writer, length)  # type: ignore[arg-type]

    monkeypatch.setattr(output.shutil, "copyfileobj", copy)
    with pytest.raises((InputError, KeyboardInterrupt)):
        publish(root, made)
    assert tree(root.parent) == before


def test_a_file_where_the_directory_should_be_is_refused_and_kept(
    tmp_path: Path, made: dict[str, Path]
) -> None:
    root = write(tmp_path / "place" / "out", "file")
    with pytest.raises(InputError, match="cannot write"):
        publish(root, made)
    assert tree(root.parent) == {"out": b"file"}


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], indirect=True, ids=oct)
@pytest.mark.parametrize("existing", [False, True])
def test_the_umask_is_respected(
    tmp_path: Path, made: dict[str, Path], umask: int, existing: bool
) -> None:
    root = tmp_path / "out"
    if existing:
        root.mkdir()
    publish(root, made)
    for path in (root, *root.rglob("*")):
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    current = os.umask(umask)
    assert current == umask


def test_interrupts_wait_until_the_renames_are_done(
    tmp_path: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "out"
    write(root / "model.onnx", "old")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        publish(root, made)
    assert tree(root) == MADE


def test_publishing_works_outside_the_main_thread(tmp_path: Path, made: dict[str, Path]) -> None:
    thread = threading.Thread(target=publish, args=(tmp_path / "out", made))
    thread.start()
    thread.join()
    assert tree(tmp_path / "out") == MADE


# --- locks, scratch, early checks -----------------------------------------------------


def test_a_lock_makes_missing_parents_and_leaves_no_file(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "out"
    with locked(root):
        assert root.parent.is_dir()
    assert list(root.parent.iterdir()) == []


def test_the_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    order = []
    started = threading.Event()

    def second() -> None:
        started.set()
        with locked(tmp_path / "out"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path / "out"):
        thread.start()
        started.wait()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "out"):
        raise RuntimeError
    with locked(tmp_path / "out"):
        pass


def test_scratch_is_gone_afterwards_even_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RuntimeError), scratch() as directory:
        write(directory / "sub/file", "x")
        assert directory.parent == tmp_path
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_scratch_that_cannot_be_made_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputError) as caught, scratch():
        pass
    assert caught.value.hint == "set TMPDIR"


def test_an_output_below_a_file_is_refused_early(tmp_path: Path) -> None:
    write(tmp_path / "file", "x")
    with pytest.raises(InputError, match="is not a directory"):
        check_writable(tmp_path / "file" / "deep" / "out")


def test_new_and_existing_outputs_in_a_writable_directory_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file", "x")
    for path in (tmp_path / "file", tmp_path / "a/b/c", tmp_path, Path("out"), Path("a/out")):
        check_writable(path)
    assert tree(tmp_path) == {"file": b"x"}


def test_an_output_in_a_directory_that_cannot_be_written_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests may run as root, for whom every directory is writable.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match="is not writable"):
        check_writable(tmp_path / "a" / "out")


def test_text_is_written_whole_into_a_directory_that_is_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "report.html"
    for text in ("first", "zweites · 二"):
        write_text(target, text)
        assert target.read_text("utf-8") == text
    assert [item.name for item in target.parent.iterdir()] == ["report.html"]
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_text_does_not_replace_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError):
        write_text(tmp_path / "file" / "report.html", "text")
    assert (tmp_path / "file").read_text() == "mine"
