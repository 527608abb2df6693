"""The TensorFlow Serving layout: ``NAME/VERSION/saved_model.pb`` and a ``models.config``.

The server finds versions as numeric directories below a model's base path and ignores
other entries, so manifest and golden samples lie beside them.
"""

from __future__ import annotations

from pathlib import Path

from modelpack.layouts import LayoutOptions, Package, choose, evidence, version_number

_CONFIG = """\
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""


def arrange(package: Package, options: LayoutOptions) -> dict[str, Path]:
    """Lay out the SavedModel artifact.

    ``models.config`` names the base path ``/models/NAME``, where the server's container
    image expects the repository to be mounted.

    Raises:
        PackagingError: there is no SavedModel artifact, or the version is no whole number.
    """
    artifact = choose(package, ("savedmodel",), options)
    name, version = package.manifest.name, version_number(package.manifest)
    config = package.scratch / "models.config"
    config.write_text(_CONFIG.format(name=name), encoding="utf-8")
    files = {f"{name}/{version}": package.root / artifact.path}
    for file, path in evidence(package, artifact, version).items():
        files[f"{name}/{file}"] = path
    return {**files, "models.config": config}
