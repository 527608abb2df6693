"""Outputs appear whole or not at all, and under their final names only when complete."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelpack.errors import InputError

_STAGING_PREFIX = ".modelpack-"


def check_writable(path: Path) -> None:
    """Fail early when ``path`` could not be created or replaced.

    Raises:
        InputError: an ancestor is not a directory, or is not writable.
    """
    ancestor = path
    with _as_input_error(path):  # a name may be too long to ask for
        while not ancestor.exists():
            ancestor = ancestor.parent
    if ancestor != path and not ancestor.is_dir():
        raise InputError(f"cannot write '{path}': '{ancestor}' is not a directory")
    directory = ancestor if ancestor.is_dir() else ancestor.parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"cannot write '{path}': '{directory}' is not writable")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary directory for one command, removed at its end.

    Raises:
        InputError: none can be made.
    """
    try:
        directory = tempfile.TemporaryDirectory(prefix="modelpack-", ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot make a temporary directory: {error.strerror}", hint="set TMPDIR"
        ) from None
    with directory as name:
        yield Path(name)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock on what is written to ``root``, so that parallel writers take turns.

    Parent directories of ``root`` are made. The lock is on its parent directory, so it
    leaves no file behind.
    """
    with _as_input_error(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def publish(root: Path, items: Mapping[str, Path]) -> None:
    """Put files and directories into the directory ``root`` under the given names.

    Everything is first copied to the file system of ``root`` and then renamed, in the order
    of ``items``. When a rename fails, those before it are undone. A new ``root`` appears
    with all its content at once. Call it while holding `locked`.

    Raises:
        InputError: no space, no permission, or a name is taken by something that cannot
            be replaced. ``root`` is as it was.
    """
    fresh = not root.exists()
    with _as_input_error(root):
        staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=root.parent if fresh else root))
        try:
            for name, path in items.items():
                _copy(path, staging / name)
            with _uninterrupted():
                if fresh:
                    staging.chmod(0o777 & ~_umask())
                    staging.rename(root)
                else:
                    _swap_in(root, staging, list(items))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all; its directory is made if need be.

    Raises:
        InputError: it cannot be written. What was there is as it was.
    """
    directory = path.absolute().parent
    with scratch() as temporary, locked(directory):
        written = temporary / "text"
        with _as_input_error(directory):
            written.write_text(text, encoding="utf-8")
        publish(directory, {path.name: written})


def _swap_in(root: Path, staging: Path, names: list[str]) -> None:
    backup = staging / ".replaced"
    done: list[str] = []
    made: list[Path] = []
    try:
        for name in names:
            made += _make_parents(root / name, root)
            if os.path.lexists(root / name):
                (backup / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).rename(backup / name)
            done.append(name)
            (staging / name).rename(root / name)
    except OSError:
        for name in reversed(done):
            if os.path.lexists(root / name):
                (root / name).rename(staging / name)
            if os.path.lexists(backup / name):
                (backup / name).rename(root / name)
        for directory in reversed(made):
            directory.rmdir()
        raise


def _make_parents(path: Path, root: Path) -> list[Path]:
    """Make the missing directories between ``root`` and ``path``; return those made."""
    missing = [parent for parent in path.parents if root in parent.parents and not parent.exists()]
    for directory in reversed(missing):
        directory.mkdir()
    return missing[::-1]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        for item in sorted(source.iterdir()):
            _copy(item, target / item.name)
        target.mkdir(exist_ok=True)
        return
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        # A rename can reach the disk before the content: without this, a power cut could
        # leave a whole-looking file of zeros under the final name.
        os.fsync(writer.fileno())


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM for the moment of renaming."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    # Not a signal mask: that holds for one thread, and another would still take the signal.
    before = {
        number: signal.signal(number, lambda taken, frame: received.append(taken))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for taken in received:
            signal.raise_signal(taken)


@contextlib.contextmanager
def _as_input_error(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to '{root.absolute()}': {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
