"""The TensorFlow Serving layout: ``NAME/VERSION/saved_model.pb`` and a ``models.config``.

The server finds versions as numeric directories below a model's base path and ignores
other entries, so manifest and golden samples lie beside them.
"""

from __future__ import annotations

import logging
from pathlib import Path

from modelpack.layouts import LayoutOptions, Package, choose, evidence, version_number

log = logging.getLogger(__name__)

_CONFIG_NAME = "models.config"
_MODEL = """\
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""


def arrange(package: Package, options: LayoutOptions) -> dict[str, Path]:
    """Lay out the SavedModel artifact.

    ``models.config`` names the base path ``/models/NAME``, where the server's container
    image expects the repository to be mounted, for every model of the repository; a file
    that was edited is left alone.

    Raises:
        PackagingError: there is no SavedModel artifact, or the version is no whole number.
    """
    artifact = choose(package, ("savedmodel",), options, every=True)
    name, version = package.manifest.name, version_number(package.manifest)
    files = {f"{name}/{version}": package.root / artifact.path}
    for file, path in evidence(package, artifact, version).items():
        files[f"{name}/{file}"] = path
    served = _served(package.output)
    existing = package.output / _CONFIG_NAME
    if existing.exists() and existing.read_text(encoding="utf-8") != configuration(served):
        log.warning(
            "%s was edited and is left as it is: see to it that it lists %s", existing, name
        )
        return files
    config = package.scratch / _CONFIG_NAME
    config.write_text(configuration({*served, name}), encoding="utf-8")
    return {**files, _CONFIG_NAME: config}


def configuration(names: set[str]) -> str:
    """Return the text of ``models.config`` for models of these names."""
    models = "".join(_MODEL.format(name=name) for name in sorted(names))
    return f"model_config_list {{\n{models}}}\n"


def _served(repository: Path) -> set[str]:
    """Names of the models that a repository holds: directories with numbered SavedModels."""
    return {
        path.parent.parent.name
        for path in repository.glob("*/*/saved_model.pb")
        if path.parent.name.isdigit()
    }
