"""The verb package: lay a modelpack directory out for a server, or archive it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from modelpack.artifact import Encoding, detect
from modelpack.errors import InputError, PackagingError
from modelpack.layouts import LayoutOptions, Package, arranger
from modelpack.manifest import Manifest, read, verify
from modelpack.output import check_writable, locked, publish, scratch
from modelpack.parity import Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackageOptions:
    """Options of `package`.

    Attributes:
        layouts: names of the layouts to write.
        name: the model's name on the server; the manifest's when empty.
        version: the model's version on the server; the manifest's when empty.
        max_batch_size: largest batch the server may form; 0 for none (Triton).
        artifact: path of the artifact to serve, or ``path:name`` of one signature of several;
            each layout's preference when empty.
        allow_failed: also package artifacts whose parity check failed.
    """

    layouts: tuple[str, ...]
    name: str = ""
    version: str = ""
    max_batch_size: int = 0
    artifact: str = ""
    allow_failed: bool = False


def package(directory: Path, output: Path, options: PackageOptions) -> list[Path]:
    """Lay out a modelpack directory.

    Args:
        directory: has a `modelpack.yaml`; its digests are checked first.
        output: for the archive alone, the ``.tar`` file; for one server layout, the model
            repository, to which the model is added; for several layouts, a directory with
            one entry for each.
        options: see `PackageOptions`.

    Returns:
        What was written: the top-level entries.

    Raises:
        InputError: it is no modelpack directory, or a layout is unknown.
        ManifestError: the manifest or a digest does not hold.
        PackagingError: a layout cannot be written from these artifacts.
    """
    if not options.layouts:
        raise InputError("no layout was named", hint="add --layout archive, tfserving or triton")
    if detect(directory) is not Encoding.MODELPACK:
        raise InputError(
            f"'{directory}' is no modelpack directory",
            hint="make one with: modelpack convert MODEL -o DIR --to FORMAT",
        )
    arrangers = {name: arranger(name) for name in dict.fromkeys(options.layouts)}
    check_writable(output)
    manifest = _manifest(directory, options)
    with scratch() as work:
        files: dict[str, Path] = {}
        for name, arrange in arrangers.items():
            log.info("laying out %s", name)
            room = work / name
            room.mkdir()
            prefix = f"{name}/" if len(arrangers) > 1 and name != "archive" else ""
            entries = arrange(
                Package(manifest, directory, room, output / prefix),
                LayoutOptions(options.max_batch_size, options.artifact),
            )
            files |= {prefix + entry: path for entry, path in entries.items()}
        root = output
        if list(arrangers) == ["archive"]:
            if output.is_dir():
                raise InputError(f"'{output}' is a directory; name the archive: -o model.tar")
            root, files = output.parent, {output.name: next(iter(files.values()))}
        elif output.exists() and not output.is_dir():
            raise InputError(f"'{output}' is a file; a layout needs a directory")
        with locked(root):
            publish(root, files)
    return sorted({root / Path(name).parts[0] for name in files})


def _manifest(directory: Path, options: PackageOptions) -> Manifest:
    manifest = read(directory)
    verify(manifest, directory)
    failed = [
        manifest.title(item) for item in manifest.artifacts if item.parity.verdict is Verdict.FAILED
    ]
    if failed and not options.allow_failed:
        raise PackagingError(
            f"these artifacts failed their parity check: {', '.join(failed)}",
            hint="convert again, or add --allow-failed",
        )
    for item in manifest.artifacts:
        if item.parity.verdict in {Verdict.UNVERIFIED, Verdict.INCONCLUSIVE}:
            title = manifest.title(item)
            log.warning("%s is %s: %s", title, item.parity.verdict, item.parity.reason)
    name = options.name or manifest.name
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise PackagingError(f"'{name}' cannot be a directory on a server", hint="add --name NAME")
    return replace(manifest, name=name, version=options.version or manifest.version)
