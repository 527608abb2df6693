"""Models on disk: which format a file is, how to refer to it, and what was made of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from modelpack.errors import InputError
from modelpack.parity import ParityReport, unverified
from modelpack.signature import Signature, TensorSpec

MANIFEST_NAME = "modelpack.yaml"


class Encoding(StrEnum):
    """How a file or directory is written, told from its content."""

    KERAS_ZIP = "keras"
    HDF5 = "h5"
    TORCH_EXPORT = "pt2"
    TORCH_SAVE = "torch-save"
    TORCHSCRIPT = "torchscript"
    TRANSFORMERS = "transformers"
    """A directory as `save_pretrained` of transformers writes it."""
    SKOPS = "skops"
    PICKLE = "pickle"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    CATBOOST = "catboost"
    PYTHON = "python"
    ONNX = "onnx"
    TFLITE = "tflite"
    SAVEDMODEL = "savedmodel"
    SAFETENSORS = "safetensors"
    MODELPACK = "modelpack"
    ARCHIVE = "archive"
    SERVER = "server"
    """No file: a running server, by its address."""
    OTHER = "other"
    """A format of another distribution, which its own adapter reads."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model that a worker can load: where it is and what the user said about it.

    Attributes:
        format: the framework or artifact format: a node of the conversion graph
            (``keras``, ``torch``, ``sklearn``, ``onnx``, ``tflite``, ``savedmodel``), or
            empty while a Python reference has not been resolved.
        encoding: how the file is written.
        location: absolute path, Python reference ``module:attribute``, or a server's address.
        weights: absolute path of a state dict for a Python reference; empty for none.
        trusted: whether loading may run code that the file contains.
        inputs: input specs the user gave.
        outputs: output names the user gave, in order.
        signature: the signature in force, once it is known; positions correspond to the
            model's own inputs and outputs.
        channel_last: names of inputs and outputs that the file has channel-last, where the
            signature has channels second.
        runtime: what runs it, by a name of its format; empty for the format's usual one.
        factory_args: what a Python reference is called with, as JSON: an object for keywords,
            an array for positions; empty for nothing.
        imports: modules (names, or paths of files) that are imported before it is loaded.
        allow_version_drift: whether a file may be loaded that another version of its
            framework saved.
        input_form: ``columns`` for an input per column, ``tensor`` for one input, where the
            model takes a table; empty for what suits it.
        signature_name: which signature of a SavedModel or TFLite file is meant; empty for its
            ``serving_default``, or its only one; `EVERY_SIGNATURE` for the usual one, or else
            the first.
    """

    format: str
    encoding: Encoding
    location: str
    weights: str = ""
    trusted: bool = False
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    signature: Signature | None = None
    channel_last: tuple[str, ...] = ()
    runtime: str = ""
    factory_args: str = ""
    imports: tuple[str, ...] = ()
    allow_version_drift: bool = False
    input_form: str = ""
    signature_name: str = ""

    @property
    def loading(self) -> ModelRef:
        """The part of the reference that decides on what is loaded."""
        return ModelRef(
            self.format,
            self.encoding,
            self.location,
            weights=self.weights,
            trusted=self.trusted,
            factory_args=self.factory_args,
            imports=self.imports,
            allow_version_drift=self.allow_version_drift,
            input_form=self.input_form,
            signature_name=self.signature_name,
        )

    @property
    def exchanged(self) -> ModelRef:
        """The reference with the signature as the file itself has it."""
        if not self.channel_last or self.signature is None:
            return self
        own = self.signature.channel_last(self.channel_last)
        return replace(self, signature=own, channel_last=())

    @property
    def path(self) -> Path:
        """The location as a path."""
        return Path(self.location)

    @property
    def display(self) -> str:
        """A short name for messages: the file's name, Python reference, or server's address."""
        if self.encoding is Encoding.SERVER:
            return self.location
        if self.encoding is not Encoding.PYTHON:
            return self.path.name
        module, _, attribute = self.location.rpartition(":")
        return f"{Path(module).name if module.endswith('.py') else module}:{attribute}"


@dataclass(frozen=True, slots=True)
class Step:
    """One converter of a route as it was run: names, versions and options, no paths."""

    converter: str
    tools: dict[str, str] = field(default_factory=dict)
    options: dict[str, str | int | float | bool] = field(default_factory=dict)


SCHEMES = ("dynamic-int8", "static-int8", "float16")
"""How an artifact can be quantized; see `Quantization`."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a quantized artifact was made and what it cost.

    Attributes:
        scheme: one of `SCHEMES`.
        of: path of the float artifact it was made from.
        calibration_samples: rows used for calibration; 0 when the scheme needs none.
        size_ratio: size over the float artifact's size.
        metric: name of the accuracy metric; empty without labelled data.
        reference_metric: the float artifact's value of the metric.
        candidate_metric: the quantized artifact's value of the metric.
    """

    scheme: str
    of: str
    calibration_samples: int = 0
    size_ratio: float = 1.0
    metric: str = ""
    reference_metric: float | None = None
    candidate_metric: float | None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs with the source's own outputs, for validating anywhere without the framework.

    Attributes:
        path: an ``.npz`` beside the manifest, with members ``<case>/inputs/<name>`` and
            ``<case>/outputs/<name>``.
        digest: ``sha256:`` and the hex digest of the file.
        cases: number of cases.
        origin: ``generated`` from the signature, or ``data`` that the user gave.
        seed: of the generator.
        arithmetic: dtype whose rounding the outputs have.
    """

    path: str
    digest: str
    cases: int
    origin: str = "generated"
    seed: int = 0
    arithmetic: str = "float32"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One model in one format, as the manifest records it.

    Attributes:
        path: relative to the manifest, with ``/`` between parts.
        format: onnx, tflite or savedmodel.
        digest: ``sha256:`` and the hex digest of the file, or of the sorted listing
            ``<hex digest>  <relative path>`` lines of a directory or of several files.
        size: bytes, all files together.
        precision: element type of the weights (``float32``, ``int8``, ...).
        signature: name of the signature it implements.
        opset: op set versions by domain.
        steps: the route, as it was run.
        bindings: the artifact's own tensor name for each signature name.
        fixed_dims: dynamic dimensions that this format could only hold at one size.
        channel_last: inputs and outputs that it exchanges channel-last, where the signature
            has channels second.
        sidecars: names of further files in its directory that belong to it (external data).
        parity: the verdict against the source.
        quantization: present when the artifact was quantized.
        golden: samples of its own, where the common ones do not suit it: those are of the first
            signature, and a calibrated artifact is only right on inputs like those it was
            calibrated on.
    """

    path: str
    format: str
    digest: str
    size: int
    precision: str = "float32"
    signature: str = "serving_default"
    opset: dict[str, int] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    bindings: dict[str, str] = field(default_factory=dict)
    fixed_dims: dict[str, int] = field(default_factory=dict)
    channel_last: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    parity: ParityReport = field(default_factory=lambda: unverified("not compared"))
    quantization: Quantization | None = None
    golden: Golden | None = None


# --- digests -------------------------------------------------------------------------


def files_of(path: Path, sidecars: tuple[str, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Yield (relative name, path) of each file of an artifact, in a stable order."""
    if path.is_dir():
        for item in sorted(path.rglob("*"), key=lambda entry: entry.relative_to(path).as_posix()):
            if item.is_file():
                yield item.relative_to(path).as_posix(), item
        return
    yield path.name, path
    for name in sidecars:
        yield name, path.parent / name


def digest_file(path: Path) -> str:
    """Return ``sha256:<hex>`` of a file."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def measure(path: Path, sidecars: tuple[str, ...] = ()) -> tuple[str, int]:
    """Return the digest and the size in bytes of an artifact (see `Artifact.digest`)."""
    files = list(files_of(path, sidecars))
    size = sum(file.stat().st_size for _, file in files)
    if not path.is_dir() and not sidecars:
        return digest_file(path), size
    listing = "".join(f"{digest_file(file)[7:]}  {name}\n" for name, file in files)
    return "sha256:" + hashlib.sha256(listing.encode()).hexdigest(), size


# --- detection -----------------------------------------------------------------------


def encoding_of(form: str) -> Encoding:
    """How an artifact of a format is written."""
    return Encoding(form) if form in set(Encoding) else Encoding.OTHER


FORMAT_OF_ENCODING = {
    Encoding.KERAS_ZIP: "keras",
    Encoding.HDF5: "keras",
    Encoding.TORCH_EXPORT: "torch",
    Encoding.TORCH_SAVE: "torch",
    Encoding.TORCHSCRIPT: "torch",
    Encoding.TRANSFORMERS: "torch",
    Encoding.SKOPS: "sklearn",
    Encoding.PICKLE: "sklearn",
    Encoding.XGBOOST: "sklearn",
    Encoding.LIGHTGBM: "sklearn",
    Encoding.CATBOOST: "sklearn",
    Encoding.PYTHON: "",
    Encoding.ONNX: "onnx",
    Encoding.TFLITE: "tflite",
    Encoding.SAVEDMODEL: "savedmodel",
    Encoding.SERVER: "server",
}

# Leading bytes of the compressions joblib writes (zlib, gzip, bzip2, xz, lzma, lz4).
_COMPRESSED = (b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18")
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib"}

LEGACY_SAVE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of `torch.save` begin that are no zip, as before PyTorch 1.6: a magic number."""

# Files that are met under the suffix of a model, and what to do with them.
_OTHER_FILES = (
    (0, b"\x93NUMPY", "an array of NumPy", "give it with --data"),
    (4, b"PTMF", "a model of PyTorch Mobile", "convert the model that it was made from"),
    (4, b"ET12", "a program of ExecuTorch", "convert the model that it was made from"),
    (0, b"GGUF", "a model of llama.cpp (GGUF)", "convert the model that it was made from"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file", "run git lfs pull"),
)


def detect(path: Path) -> Encoding:
    """Tell how a model on disk is written, from its content; nothing is loaded.

    Raises:
        InputError: there is nothing at the path, or it is no kind of model known here.
    """
    try:
        if path.is_dir():
            return _detect_directory(path)
        with path.open("rb") as stream:
            head = stream.read(512)
            size = os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        raise InputError(f"there is no file or directory '{path}'") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from None
    if size == 0:
        raise InputError(f"'{path}' is empty")
    found = _detect_bytes(path, head, size)
    for place, mark, what, advice in _OTHER_FILES if found is None else ():
        if head[place:].startswith(mark):
            raise InputError(f"'{path}' is {what}", hint=advice)
    if found is None:
        raise InputError(
            f"'{path}' is not a model modelpack knows: its content fits no supported format"
            + (f", although it is called '{path.suffix}'" if path.suffix else ""),
            hint="supported: .keras .h5 .pt2 .pt .skops .joblib .pkl .onnx .tflite, the files of "
            "XGBoost, LightGBM and CatBoost, a SavedModel, modelpack or transformers directory, "
            "a modelpack archive, or a Python reference module:attribute",
        )
    return found


_TORCH_FILES = {Encoding.TORCH_SAVE, Encoding.TORCHSCRIPT, Encoding.TORCH_EXPORT}
_USUAL = {
    ".onnx": {Encoding.ONNX},
    ".tflite": {Encoding.TFLITE},
    ".keras": {Encoding.KERAS_ZIP},
    ".h5": {Encoding.HDF5},
    ".pt2": {Encoding.TORCH_EXPORT},
    ".pt": _TORCH_FILES,
    ".pth": _TORCH_FILES,
    ".ckpt": _TORCH_FILES,
    ".skops": {Encoding.SKOPS},
    ".ubj": {Encoding.XGBOOST},
    ".cbm": {Encoding.CATBOOST},
    ".safetensors": {Encoding.SAFETENSORS},
}


def contradicts(path: Path, encoding: Encoding) -> bool:
    """Whether a file is called as if it were of another encoding than its content is."""
    usual = _USUAL.get(path.suffix.lower())
    return usual is not None and path.is_file() and encoding not in usual


def _detect_directory(path: Path) -> Encoding:
    if (path / MANIFEST_NAME).is_file():
        return Encoding.MODELPACK
    if (path / "saved_model.pb").is_file():
        return Encoding.SAVEDMODEL
    if (path / "config.json").is_file():
        return _detect_configured(path)
    if (path / "model_index.json").is_file():
        raise InputError(
            f"'{path}' is a pipeline of diffusers, which is several models",
            hint="convert one of them: give its own module as a Python reference",
        )
    raise InputError(
        f"'{path}' is a directory, but neither a SavedModel (no saved_model.pb) "
        f"nor a modelpack directory (no {MANIFEST_NAME}) "
        "nor one of transformers (no config.json)"
    )


def _detect_configured(path: Path) -> Encoding:
    """Tell the libraries apart that keep a model beside a ``config.json``."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path / 'config.json'}' cannot be read: {error}") from None
    known = config if isinstance(config, dict) else {}
    if "model_type" in known or "architectures" in known:
        return Encoding.TRANSFORMERS
    if isinstance(known.get("architecture"), str):
        arguments = {"model_name": known["architecture"]}
        if "num_classes" in known:
            arguments["num_classes"] = known["num_classes"]
        raise InputError(
            f"'{path}' is a model of timm, which keeps its weights and the name of its code",
            hint=f"convert timm:create_model --factory-args '{json.dumps(arguments)}' "
            f"--weights {path / 'model.safetensors'}, with an --input",
        )
    raise InputError(
        f"'{path}' has a config.json, but it is not of transformers: "
        "it has neither 'architectures' nor 'model_type'"
    )


def _detect_bytes(path: Path, head: bytes, size: int) -> Encoding | None:
    if head.startswith(b"PK\x03\x04"):
        return _detect_zip(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return Encoding.HDF5
    if head[4:8] == b"TFL3":
        return Encoding.TFLITE
    if head[257:262] == b"ustar":
        return Encoding.ARCHIVE
    if head.startswith(LEGACY_SAVE):
        return Encoding.TORCH_SAVE
    booster = _detect_booster(head)
    if booster is not None:
        return booster
    if _looks_like_onnx(head):
        return Encoding.ONNX
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return Encoding.SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return Encoding.PICKLE
    if path.suffix in _PICKLE_SUFFIXES and head.startswith((*_COMPRESSED, b"(", b"c", b"]", b"}")):
        return Encoding.PICKLE
    return None


# How files begin that libraries of boosters write: XGBoost as JSON, and as UBJSON, where a length
# stands before the name; LightGBM as text; CatBoost as its own format, and as JSON.
_BOOSTERS = (
    (re.compile(rb'\{\s*"learner"'), Encoding.XGBOOST),
    (re.compile(rb"\{[iUIlL][\x00\x07]{1,8}learner", re.DOTALL), Encoding.XGBOOST),
    (re.compile(rb"tree\r?\nversion=v"), Encoding.LIGHTGBM),
    (re.compile(rb"CBM1"), Encoding.CATBOOST),
    (re.compile(rb'\{\s*"(ctrs|features_info)"'), Encoding.CATBOOST),
)


def _detect_booster(head: bytes) -> Encoding | None:
    return next((found for pattern, found in _BOOSTERS if pattern.match(head)), None)


def _detect_zip(path: Path) -> Encoding:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeError) as error:
        raise InputError(
            f"'{path}' begins like a zip-based model file but is truncated or damaged: {error}"
        ) from None
    leaves = {name.split("/", 1)[-1] for name in names}
    if {"config.json", "metadata.json"} <= names:
        return Encoding.KERAS_ZIP
    if "schema.json" in names:
        return Encoding.SKOPS
    if "archive_format" in leaves or "serialized_exported_program.json" in leaves:
        return Encoding.TORCH_EXPORT
    if "constants.pkl" in leaves and any(leaf.startswith("code/") for leaf in leaves):
        return Encoding.TORCHSCRIPT
    if "data.pkl" in leaves:
        return Encoding.TORCH_SAVE
    raise InputError(
        f"'{path}' is a zip file, but none of .keras, .pt2, .pt or .skops: "
        f"it holds {_zip_contents(names)}"
    )


def _zip_contents(names: set[str]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "arrays of NumPy (.npz), which is data"
    if "MAR-INF/MANIFEST.json" in names:
        return "an archive of TorchServe; the model is a file in it"
    if any(name.endswith("saved_model.pb") for name in names):
        return "a SavedModel; unpack it and give the directory"
    first = sorted(names)[:3]
    more = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return f"{', '.join(first) or 'nothing'}{more}"


def _looks_like_onnx(head: bytes) -> bool:
    """Whether the bytes begin like a serialized ModelProto.

    A ModelProto starts with field 1 (ir_version, a varint: tag 0x08, a value of 1 to 63)
    followed by another of its fields: opset_import 8, producer name 2 and version 3,
    domain 4, model_version 5, doc_string 6, graph 7, metadata 14, functions 25, as in
    onnx.proto. Writers that sort otherwise still write ir_version first.
    """
    followers = {0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72}
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 63 and head[2] in followers
