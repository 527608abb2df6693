from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import archive
from modelpack.errors import InputError


@pytest.fixture(autouse=True)
def _no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def members(root: Path) -> dict[str, Path]:
    (root / "saved_model" / "variables").mkdir(parents=True)
    (root / "manifest").write_text("modelpack: 1\n")
    (root / "z.onnx").write_bytes(bytes(range(256)) * 100)
    (root / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (root / "saved_model" / "variables" / ("long" * 40)).write_bytes(b"")
    return {
        "z.onnx": root / "z.onnx",
        "saved_model": root / "saved_model",
        "modelpack.yaml": root / "manifest",
    }


def tar(path: Path, *entries: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as stream:
        for entry in (tarfile.TarInfo("modelpack.yaml"), *entries):
            entry.size = len(content) if entry.isfile() else 0
            stream.addfile(entry, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


def test_an_archive_unpacks_to_what_was_packed(tmp_path: Path) -> None:
    packed = members(tmp_path)
    archive.write(packed, tmp_path / "m.tar")
    archive.extract(tmp_path / "m.tar", tmp_path / "out")
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found == {
        "modelpack.yaml": b"modelpack: 1\n",
        "saved_model/saved_model.pb": b"graph",
        "saved_model/variables/" + "long" * 40: b"",
        "z.onnx": bytes(range(256)) * 100,
    }


def test_the_bytes_depend_on_the_content_only(tmp_path: Path) -> None:
    for place in ("one", "two/deeper"):
        root = tmp_path / place
        packed = members(root)
        if place != "one":
            packed = dict(reversed(packed.items()))
            os.utime(root / "z.onnx", (12345, 12345))
            (root / "z.onnx").chmod(0o700)
        archive.write(packed, tmp_path / f"{root.name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "deeper.tar").read_bytes()


def test_members_are_sorted_after_the_manifest_and_belong_to_nobody(tmp_path: Path) -> None:
    archive.write(members(tmp_path), tmp_path / "m.tar")
    with tarfile.open(tmp_path / "m.tar") as stream:
        found = stream.getmembers()
    names = [member.name for member in found]
    assert names[0] == "modelpack.yaml"
    assert names[1:] == sorted(names[1:])
    for member in found:
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert (member.mtime, member.mode) == (0, 0o644)


def test_source_date_epoch_is_the_time_of_every_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    archive.write(members(tmp_path), tmp_path / "m.tar")
    with tarfile.open(tmp_path / "m.tar") as stream:
        assert {member.mtime for member in stream} == {1700000000}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "..", "a/..", "../out-evil/x", "//evil"]
)
def test_members_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "in" / "out"
    root.parent.mkdir()
    with pytest.raises(InputError, match="leaves the archive"):
        archive.extract(tar(tmp_path / "m.tar", entry(name)), root)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "in",
        "m.tar",
        "modelpack.yaml",
        "out",
    ]


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE],
    ids=["symlink", "hard link", "fifo", "character device", "block device"],
)
def test_members_other_than_regular_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "target").write_text("precious")
    link = entry("link", kind, str(tmp_path / "target"))
    with pytest.raises(InputError, match="'link', which is not a regular file"):
        archive.extract(tar(tmp_path / "m.tar", link, entry("link")), tmp_path / "out")
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "out" / "link").exists()


def test_directory_members_of_other_writers_are_accepted(tmp_path: Path) -> None:
    file = tar(tmp_path / "m.tar", entry("sub", tarfile.DIRTYPE), entry("sub/x"))
    archive.extract(file, tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "x").read_bytes() == b"x"


def test_a_tar_of_something_else_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.tar", "w") as stream:
        stream.addfile(tarfile.TarInfo("readme"))
    with pytest.raises(InputError, match=r"without modelpack\.yaml"):
        archive.extract(tmp_path / "m.tar", tmp_path / "out")


def test_a_member_that_is_both_file_and_directory_is_refused(tmp_path: Path) -> None:
    file = tar(tmp_path / "m.tar", entry("a"), entry("a/b"))
    with pytest.raises(InputError, match="cannot unpack"):
        archive.extract(file, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"text" * 300, b"\x1f\x8b\x08" + bytes(600)])
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.tar").write_bytes(content)
    with pytest.raises(InputError):
        archive.extract(tmp_path / "m.tar", tmp_path / "out")


@pytest.mark.parametrize("keep", [100, 512, 700, 1024 + 200, 2048 + 20])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: int) -> None:
    file = tar(tmp_path / "m.tar", entry("large"), content=bytes(2000))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"truncated|without modelpack\.yaml"):
        archive.extract(file, tmp_path / "out")


@settings(max_examples=100)
@given(st.integers(0, 3 * 512 - 1), st.integers(1, 255))
def test_one_damaged_byte_gives_a_result_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, change: int
) -> None:
    place = tmp_path_factory.mktemp("damaged")
    file = tar(place / "m.tar", entry("model.onnx"))
    content = bytearray(file.read_bytes())
    content[position] ^= change
    file.write_bytes(content)
    with contextlib.suppress(InputError):
        archive.extract(file, place / "out")
    assert {path.name for path in place.iterdir()} <= {"m.tar", "out"}
