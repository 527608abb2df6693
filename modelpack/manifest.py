"""The manifest (`modelpack.yaml`): what is in a package, where it came from, how it was checked.

Its YAML is canonical: fields in the order of the dataclasses, fields at their default left
out, lists of plain values on one line, no clock, host or absolute path. The same content is
always the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from modelpack.artifact import MANIFEST_NAME, Artifact, Golden, digest_file, measure
from modelpack.errors import InputError, ManifestError, ParityError
from modelpack.parity import Verdict
from modelpack.signature import EVERY_SIGNATURE, Signature, unknown_signature

SCHEMA_VERSION = 1
DEFAULT_VERSION = "1"  # of a model whose user counts none
SIDE_SUFFIX = ".modelpack.yaml"
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """The model everything was made from.

    Attributes:
        framework: keras, torch, sklearn, or the format of a source that is an artifact.
        file: file name without its directory, or the Python reference.
        digest: of the file, or of the directory (see `Artifact.digest`); for a Python
            reference, of its file's digest and that of its weights.
        weights: name and digest of the weights file given beside a reference; or empty.
        factory_args: what the Python reference was called with: keywords or positions.
        versions: library versions that loaded it, by distribution name.
        saved_by: versions that saved it, where others were allowed to load it.
    """

    framework: str
    file: str
    digest: str = ""
    weights: dict[str, str] = dataclasses.field(default_factory=dict)
    factory_args: dict[str, Any] | list[Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    saved_by: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a `modelpack.yaml`.

    Attributes:
        modelpack: version of this schema.
        name: the model's name.
        version: the model's version, as the user counts.
        source: what it was made from.
        signatures: ``serving_default`` first.
        artifacts: sorted by path. A file of several signatures has an entry for each, in their
            order.
        golden: golden samples of the first signature, when there are any.
    """

    modelpack: int
    name: str
    version: str
    source: Source
    signatures: tuple[Signature, ...]
    artifacts: tuple[Artifact, ...] = ()
    golden: Golden | None = None

    def signature(self, name: str) -> Signature:
        """Return the signature of this name.

        Raises:
            ManifestError: there is none.
        """
        for signature in self.signatures:
            if signature.name == name:
                return signature
        raise ManifestError(f"the manifest of '{self.name}' has no signature '{name}'")

    def named_signature(self, name: str) -> Signature:
        """Return the signature that a user asks for; the first one by no name, or by ``all``.

        Raises:
            InputError: there is none of this name.
        """
        if name in {"", EVERY_SIGNATURE}:
            return self.signatures[0]
        held = {signature.name: signature for signature in self.signatures}
        if name not in held:
            raise unknown_signature(self.name, name, list(held))
        return held[name]

    def signature_of(self, artifact: Artifact) -> Signature:
        """Return the signature of an artifact, with the dimensions it fixes."""
        return self.signature(artifact.signature).with_dims(artifact.fixed_dims)

    def exchanged_signature_of(self, artifact: Artifact) -> Signature:
        """Return the signature that whoever calls the artifact sees: with its order of axes."""
        return self.signature_of(artifact).channel_last(artifact.channel_last)

    def golden_of(self, artifact: Artifact) -> Golden | None:
        """Return the golden samples an artifact is compared with: its own, or the common ones.

        The common ones are of the first signature.
        """
        common = self.golden if artifact.signature == self.signatures[0].name else None
        return artifact.golden or common

    def goldens(self) -> tuple[Golden, ...]:
        """Every file of golden samples: the common one, then those of artifacts."""
        return tuple(
            golden
            for golden in (self.golden, *(item.golden for item in self.artifacts))
            if golden is not None
        )

    def in_file(self, path: str) -> tuple[Artifact, ...]:
        """Return the entries of a file: one for each signature that it holds."""
        return tuple(item for item in self.artifacts if item.path == path)

    def name_in_file(self, artifact: Artifact) -> str:
        """Return what the file calls the artifact's signature; empty where it has no other."""
        return artifact.signature if len(self.in_file(artifact.path)) > 1 else ""

    def title(self, artifact: Artifact) -> str:
        """Return the artifact's path, with its signature where the file has several."""
        name = self.name_in_file(artifact)
        return f"{artifact.path} ({name})" if name else artifact.path

    def with_artifacts(self, *artifacts: Artifact) -> Manifest:
        """Return the manifest with artifacts added, replacing those of the same paths."""
        replaced = {item.path for item in artifacts}
        kept = (item for item in self.artifacts if item.path not in replaced)
        return replace(self, artifacts=by_path((*kept, *artifacts)))


def by_path(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """Return artifacts in the order of a manifest; those of one file stay as they are given."""
    return tuple(sorted(artifacts, key=lambda item: item.path))


# --- YAML ----------------------------------------------------------------------------


def dump(manifest: Manifest) -> str:
    """Return the canonical YAML; ``load(dump(manifest)) == manifest``.

    Raises:
        ManifestError: it could not be read again: names or paths contradict each other.
    """
    import yaml

    _check(manifest, MANIFEST_NAME)
    text: str = yaml.dump(
        plain(manifest),
        Dumper=_dumper(),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=100,
    )
    return text


def load(text: str, where: str = MANIFEST_NAME) -> Manifest:
    """Read a manifest.

    Raises:
        ManifestError: the text is no YAML, has an unknown schema version or unknown
            fields, or breaks the schema. The message says where.
    """
    import msgspec
    import yaml

    try:
        document = yaml.load(text, Loader=_loader())  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(f"{where} is not valid YAML: {reason}") from None
    if not isinstance(document, dict) or "modelpack" not in document:
        raise ManifestError(f"{where} is no modelpack manifest: it lacks the field 'modelpack'")
    if document["modelpack"] != SCHEMA_VERSION:
        raise ManifestError(
            f"{where} has schema version {document['modelpack']!r}; "
            f"this modelpack reads version {SCHEMA_VERSION}",
            hint="use the modelpack that wrote it, or a newer one",
        )
    try:
        manifest = msgspec.convert(document, Manifest)
    except (msgspec.ValidationError, InputError, ValueError, TypeError) as error:
        raise ManifestError(f"{where} breaks the schema: {error}") from None
    unknown = list(_unknown(document, msgspec.to_builtins(manifest), ""))
    if unknown:
        raise ManifestError(f"{where} has unknown fields: {', '.join(unknown)}")
    _check(manifest, where)
    return manifest


def plain(value: Any) -> Any:
    """Turn dataclasses into dictionaries of plain values, leaving out fields at their default.

    Enumerations become their strings, tuples become lists.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not _is_default(field, getattr(value, field.name))
        }
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        # 1 == True and 0 == False in Python, but not in YAML.
        return type(field.default) is type(value) and bool(field.default == value)
    if field.default_factory is not dataclasses.MISSING:
        return bool(field.default_factory() == value)
    return False


def _unknown(given: Any, known: Any, path: str) -> Iterator[str]:
    """Yield the paths of mapping keys in ``given`` that did not survive decoding."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{path}{key}"
            else:
                yield from _unknown(value, known[key], f"{path}{key}.")
    elif isinstance(given, list) and isinstance(known, list | tuple):
        for index, (one, other) in enumerate(zip(given, known, strict=False)):
            yield from _unknown(one, other, f"{path}{index}.")


def _check(manifest: Manifest, where: str) -> None:
    if not manifest.signatures:
        raise ManifestError(f"{where} has no signature")
    for artifact in manifest.artifacts:
        manifest.signature(artifact.signature)
    names = [signature.name for signature in manifest.signatures]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ManifestError(f"{where} lists two signatures called '{doubled[0]}'")
    _check_shared_files(manifest, where)
    paths = [artifact.path for artifact in manifest.artifacts]
    paths += [name for artifact in manifest.artifacts for name in artifact.sidecars]
    paths += [golden.path for golden in manifest.goldens()]
    for path in paths:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\\" in path:
            raise ManifestError(f"{where} names the path '{path}', which leaves its directory")


def _check_shared_files(manifest: Manifest, where: str) -> None:
    """Refuse entries of one path that are no signatures of one file."""
    known: dict[str, Artifact] = {}
    signatures: set[tuple[str, str]] = set()
    for item in manifest.artifacts:
        if (item.path, item.signature) in signatures:
            raise ManifestError(
                f"{where} lists two artifacts called '{item.path}' of the signature "
                f"'{item.signature}'"
            )
        signatures.add((item.path, item.signature))
        if _file_facts(known.setdefault(item.path, item)) != _file_facts(item):
            raise ManifestError(f"{where} says different things about the file '{item.path}'")


def _file_facts(artifact: Artifact) -> tuple[object, ...]:
    """What an entry says about the file, and not about a signature of it."""
    return artifact.format, artifact.digest, artifact.size, artifact.precision, artifact.sidecars


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Block style, except for lists of plain values, which stay on one line."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def sequence(dumper: Any, items: Any) -> Any:
        flat = not any(isinstance(item, dict | list) for item in items)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)

    def text(dumper: Any, value: str) -> Any:
        # YAML reads these as line breaks, and PyYAML writes them bare unless it quotes.
        style = '"' if set(value) & {"\x85", "\u2028", "\u2029"} else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(list, sequence)
    Dumper.add_representer(str, text)
    return Dumper


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that refuses aliases and keys given twice.

        A few aliases can stand for gigabytes; of two equal keys the last would win unseen.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError("aliases are not allowed in a manifest")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            doubled = [key for key in keys if keys.count(key) > 1]
            if doubled:
                raise yaml.YAMLError(f"the field '{doubled[0]}' is given twice")
            return super().construct_mapping(node, deep)

    return Loader


def json_schema() -> str:
    """Return the JSON Schema of the manifest, as `manifest.schema.json` holds it."""
    import msgspec

    schema = msgspec.json.schema(Manifest)
    for definition in schema["$defs"].values():
        definition.pop("description", None)
        definition["additionalProperties"] = False
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    schema["$defs"]["Manifest"]["properties"]["modelpack"]["const"] = SCHEMA_VERSION
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


# --- files ---------------------------------------------------------------------------


def side_path(artifact: Path) -> Path:
    """Where the manifest of a single artifact file is: ``model.onnx.modelpack.yaml``."""
    return artifact.with_name(artifact.name + SIDE_SUFFIX)


def read(path: Path) -> Manifest:
    """Read a manifest file, or the one of a directory.

    Raises:
        ManifestError: it cannot be read, or see `load`.
    """
    file = path / MANIFEST_NAME if path.is_dir() else path
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ManifestError(f"{file.name} is larger than {_MAX_BYTES >> 20} MiB")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"cannot read '{file}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"'{file}' is not UTF-8 text") from None
    return load(text, file.name)


def find(model: Path) -> tuple[Manifest, tuple[Artifact, ...]] | None:
    """Return the manifest that lists a file and its entries there; None if there is none.

    It is looked for beside the file (``model.onnx.modelpack.yaml``) and in its directory.
    """
    for file in (side_path(model), model.parent / MANIFEST_NAME):
        if file.is_file():
            manifest = read(file)
            if entries := manifest.in_file(model.name):
                return manifest, entries
    return None


def refuse_failed(artifact: Artifact) -> None:
    """Refuse to make anything from an artifact that disagrees with its source.

    Raises:
        ParityError: its verdict is ``failed``: what is made of it would pass against it.
    """
    if artifact.parity.verdict is Verdict.FAILED:
        raise ParityError(
            f"'{artifact.path}' failed its comparison with the source: {artifact.parity.reason}",
            hint="start from the source, or from an artifact that passed",
        )


def verify(manifest: Manifest, root: Path) -> None:
    """Check that every file the manifest lists is there with its digest.

    Raises:
        ManifestError: listing every file that is missing or differs.
    """
    wrong = []
    for artifact in {item.path: item for item in manifest.artifacts}.values():
        path = root / artifact.path
        files = [path, *(path.parent / name for name in artifact.sidecars)]
        if not all(file.exists() for file in files):
            wrong.append(f"{artifact.path} is missing")
        elif measure(path, artifact.sidecars)[0] != artifact.digest:
            wrong.append(f"{artifact.path} is not what the manifest recorded")
    for golden in manifest.goldens():
        file = root / golden.path
        if not file.is_file():
            wrong.append(f"{golden.path} is missing")
        elif digest_file(file) != golden.digest:
            wrong.append(f"{golden.path} is not what the manifest recorded")
    if wrong:
        raise ManifestError("integrity: " + "; ".join(wrong), hint="convert again from the source")
