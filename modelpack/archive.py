"""Package archives: a modelpack directory as one ``.tar`` with reproducible bytes."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from modelpack.artifact import MANIFEST_NAME, files_of
from modelpack.errors import InputError

_MODE = 0o644


def write(members: Mapping[str, Path], target: Path) -> None:
    """Write files and directories to a tar under the given names, the manifest first.

    Members are sorted and carry no owner and the time ``SOURCE_DATE_EPOCH`` (0 if unset),
    so the bytes depend on the content only. Not compressed: weights hardly shrink, and
    readers can seek in it.
    """
    files = {
        f"{name}/{inner}" if path.is_dir() else name: file
        for name, path in members.items()
        for inner, file in files_of(path)
    }
    epoch = _source_date_epoch()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as stream:
        for name in sorted(files, key=lambda name: (name != MANIFEST_NAME, name)):
            member = tarfile.TarInfo(name)
            member.size = files[name].stat().st_size
            member.mode = _MODE
            member.mtime = epoch
            with files[name].open("rb") as content:
                stream.addfile(member, content)


def extract(path: Path, root: Path) -> None:
    """Unpack an archive into ``root``, regular files only.

    Raises:
        InputError: it is damaged, holds anything but regular files below its own root, or
            is no modelpack archive.
    """
    root.mkdir()
    try:
        with tarfile.open(path, "r:") as stream:
            for member in stream:
                if member.isdir():
                    continue
                _check_member(path, member)
                content = stream.extractfile(member)
                assert content is not None
                target = root / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
                if target.stat().st_size != member.size:
                    raise InputError(f"'{path.name}' is truncated: {member.name} is cut off")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"'{path.name}' is truncated or damaged: {error}") from None
    except OSError as error:
        raise InputError(f"cannot unpack '{path.name}': {error.strerror or error}") from None
    if not (root / MANIFEST_NAME).is_file():
        raise InputError(f"'{path.name}' is a tar archive without {MANIFEST_NAME}")


def _source_date_epoch() -> int:
    """The time of all members: https://reproducible-builds.org/specs/source-date-epoch/."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not text.isascii() or not text.isdigit():
        raise InputError(f"SOURCE_DATE_EPOCH is '{text}', not a whole number of seconds")
    return int(text)


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"'{path.name}' holds '{member.name}', which leaves the archive")
    # A sparse file of a few bytes can claim to be of any size.
    if not member.isfile() or member.issparse():
        raise InputError(f"'{path.name}' holds '{member.name}', which is not a regular file")
