"""The archive layout: everything in one ``.tar``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from modelpack import archive
from modelpack.artifact import MANIFEST_NAME
from modelpack.layouts import LayoutOptions, Package
from modelpack.manifest import dump


def arrange(package: Package, options: LayoutOptions) -> dict[str, Path]:
    """Pack the manifest and all it lists; the same content is always the same bytes."""
    manifest = package.manifest
    members = {item.path: package.root / item.path for item in manifest.artifacts}
    for item in manifest.artifacts:
        for name in item.sidecars:
            sidecar = PurePosixPath(item.path).with_name(name).as_posix()
            members[sidecar] = package.root / sidecar
    members |= {golden.path: package.root / golden.path for golden in manifest.goldens()}
    written = package.scratch / "archived-manifest.yaml"
    written.write_text(dump(manifest), encoding="utf-8")
    members[MANIFEST_NAME] = written
    target = package.scratch / f"{manifest.name}.tar"
    archive.write(members, target)
    return {target.name: target}
