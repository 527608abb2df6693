"""Load PyTorch models, and tell what in their files could run code.

`torch.export.load` and `torch.load(weights_only=False)` run code that a file contains, in
more places than its pickles: symbolic shapes are evaluated, op names are looked up as
attributes, argument names become generated source. `scan` reads all of them first and
accepts only what is known to be plain data. It is a filter, not a sandbox.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.export import ExportedProgram

from modelpack import reference
from modelpack.adapters.pickles import pickle_globals
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import (
    ConversionError,
    InputError,
    ModelpackError,
    UntrustedSourceError,
    first_line,
)

Model: TypeAlias = torch.nn.Module | ExportedProgram

_SHOWN = 12  # keys or findings listed in full before "and N more"

# What torch.export.save writes for one program without custom objects.
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment"
    r"|\.data/(version|serialization_id)|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|extra/.+"
)
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
# Names end up in generated source: without brackets, quotes and operators they cannot
# form a call there.
_PLAIN = re.compile(r"[\w .:/-]*")
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision|higher_order)\.\w+(\.\w+)?"
    r"|_operator\.(add|sub|mul|matmul|truediv|floordiv|mod|pow|neg|pos|abs|inv|invert|getitem"
    r"|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|is_|is_not|lshift|rshift)"
    r"|math\.(ceil|floor|trunc|sqrt|log2)|torch\.(sym_\w+|_sym_\w+)"
)
# Guards compare sizes of inputs: L['ids'].size()[0] == L['mask'].size()[0].
_GUARD = re.compile(
    r"(L\['[\w.]+'\]|\.size\(\)|\.stride\(\)|\[\d+\]|\b(and|or|not)\b|[\d\s()+*/%<>=!,-])+"
)
_FORBIDDEN_OPS = re.compile(r"\.(__\w+|from_file|save|load\w*)(\.|$)")
_EXPRESSION_CALLS = {
    *("Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs"),
    *("And", "Or", "Not", "Eq", "Ne", "Equality", "Unequality", "Gt", "Ge", "Lt", "Le"),
    *("GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan", "Piecewise"),
    *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt"),
    *("CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv"),
    *("IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt"),
    *("RoundDecimal", "ToFloat", "Identity", "floor", "ceiling", "Function", "BooleanTrue"),
} - {"Function"}


# --- scanning ------------------------------------------------------------------------


def scan(ref: ModelRef) -> list[str]:
    """Say what in the file could run code when it is loaded; empty when nothing could.

    Raises:
        InputError: the file is damaged.
    """
    if ref.encoding is Encoding.TORCH_EXPORT:
        return list(_scan_export(ref.location))
    if ref.encoding is Encoding.TORCH_SAVE:
        return list(_scan_save(ref.location))
    return []


@lru_cache
def _scan_export(location: str) -> tuple[str, ...]:
    path = Path(location)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InputError(f"'{path.name}' is damaged: {error}") from None
    if "serialized_exported_program.json" in names:
        return ("it has the layout of PyTorch 2.7, whose tensors are pickles",)
    found = list(_odd_members(names))
    if found:
        return tuple(found)
    try:
        # The reader of the loader itself: what is checked is what is going to be loaded,
        # even where two zip implementations disagree about a file.
        reader = torch._C.PyTorchFileReader(location)
        records = set(reader.get_all_records())
        listed = {name.split("/", 1)[1] for name in names}
        if records - listed:
            return (f"it hides members from the zip directory: {_shown(records - listed)}",)
        return tuple(_odd_contents(reader, records))
    except ModelpackError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"'{path.name}' is damaged: {first_line(error)}") from None


def _check_sums(path: Path) -> None:
    """Check what PyTorch's own reader does not: that the content is what was written.

    Raises:
        InputError: a member differs from its checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InputError(f"'{path.name}' is damaged: {error}") from None
    if wrong is not None:
        raise InputError(f"'{path.name}' is damaged: '{wrong}' does not have its checksum")


def _odd_members(names: list[str]) -> Iterator[str]:
    roots = {name.split("/", 1)[0] for name in names}
    if len(roots) != 1 or any("/" not in name for name in names):
        yield f"its members do not share one folder: {_shown(roots)}"
        return
    if len(set(names)) != len(names):
        yield "it has several members of one name"
    for name in names:
        member = name.split("/", 1)[1]
        if member.startswith("data/aotinductor/"):
            yield f"compiled code in '{member}'"
        elif member.rpartition("/")[2].startswith(("custom_obj_", "opaque_obj_")):
            yield f"a pickled object in '{member}'"
        elif not _MEMBERS.fullmatch(member):
            yield f"a member that torch.export.save does not write: '{member}'"


def _odd_contents(reader: Any, records: set[str]) -> Iterator[str]:
    for member in sorted(records):
        if member.endswith(".pt"):
            yield from _pickle_findings(reader.get_record(member), f"in '{member}'")
        elif member.endswith("_config.json"):
            payloads = json.loads(reader.get_record(member))["config"]
            for name, payload in payloads.items():
                if payload.get("use_pickle") or not _PAYLOAD.fullmatch(payload["path_name"]):
                    yield f"a pickled payload for '{name}' in '{member}'"
        elif member == "models/model.json":
            program = json.loads(reader.get_record(member))
            yield from dict.fromkeys(_odd_values(program, ""))


def _odd_values(value: Any, key: str) -> Iterator[str]:
    """Walk the JSON of a program and yield each value that the loader could execute."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "metadata":  # split into strings by the loader, never evaluated
                continue
            if not _PLAIN.fullmatch(name):
                yield f"a name that is no plain text: {_quoted(name)}"
            yield from _odd_values(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _odd_values(item, key)
    elif isinstance(value, str):
        yield from _odd_text(value, key)


def _odd_text(text: str, key: str) -> Iterator[str]:
    if key == "expr_str":
        if not _is_plain_expression(text):
            yield f"a symbolic shape that is an arbitrary expression: {_quoted(text)}"
    elif key in {"target", "as_operator"}:
        if not _TARGET.fullmatch(text) or _FORBIDDEN_OPS.search(text):
            yield f"an op outside of PyTorch's own: {_quoted(text)}"
    elif key in {"in_spec", "out_spec"}:
        if "__enum__" in text or "default_factory_module" in text:
            yield f"a structure that imports a module: {_quoted(text)}"
        yield from _odd_strings(json.loads(text))
    elif key == "guards_code":
        if not _GUARD.fullmatch(text):
            yield f"a guard that is an arbitrary expression: {_quoted(text)}"
    elif key == "torch_version":
        return  # compared, never evaluated
    elif key == "class_fqn":
        yield f"a custom object of class {_quoted(text)}"
    elif key not in {"as_string", "as_strings"} and not _PLAIN.fullmatch(text):
        yield f"a name that is no plain text: {_quoted(text)}"


def _odd_strings(value: Any) -> Iterator[str]:
    """Check the strings of a tree structure, whose contexts are JSON inside of JSON."""
    if isinstance(value, dict):
        yield from _odd_strings([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from _odd_strings(item)
    elif isinstance(value, str) and value[:1] in {"[", "{", '"'}:
        yield from _odd_strings(json.loads(value))
    elif isinstance(value, str) and not _PLAIN.fullmatch(value):
        yield f"a name that is no plain text: {_quoted(value)}"


def _is_plain_expression(text: str) -> bool:
    """Whether a symbolic expression is arithmetic over symbols; SymPy evaluates it as Python."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names_of_symbols = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        for argument in node.args[:1]
        if node.func.id == "Symbol"
    }
    return all(_is_plain_node(node, names_of_symbols) for node in ast.walk(tree))


def _is_plain_node(node: ast.AST, names_of_symbols: set[int]) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _EXPRESSION_CALLS
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return id(node) in names_of_symbols and node.value.isidentifier()
        return isinstance(node.value, int | float | bool)
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    harmless = (
        *(ast.Expression, ast.keyword, ast.expr_context, ast.operator, ast.unaryop, ast.cmpop),
        *(ast.boolop, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Tuple),
    )
    return isinstance(node, harmless)


@lru_cache
def _scan_save(location: str) -> tuple[str, ...]:
    try:
        content = Path(location).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read '{Path(location).name}': {error.strerror}") from None
    return tuple(_pickle_findings(content, ""))


def _pickle_findings(content: bytes, where: str) -> Iterator[str]:
    """Try a ``torch.save`` file in the restricted mode; name its globals where that refuses.

    Raises:
        InputError: it is no readable ``torch.save`` file.
    """
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        return
    except Exception as error:  # any failure: the exported-program loader would retry unsafely
        problem = first_line(error)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            pickled = pickle_globals(archive.read(member))
    except (StopIteration, zipfile.BadZipFile, NotImplementedError, EOFError):
        if where:  # inside of a .pt2: fail closed
            yield f"a pickle that cannot be read safely {where}: {problem}"
            return
        raise InputError(f"the file is damaged: {problem}") from None
    suspicious = [name for name in pickled.names if not _is_usual_global(name)]
    if pickled.problem:
        suspicious.append(f"something that cannot be read ({pickled.problem})")
    if not suspicious and not where:
        raise InputError(f"the file is damaged: {problem}")
    suffix = f" {where}" if where else ""
    for name in suspicious or ["an unreadable object"]:
        yield f"a pickle{suffix} names {name}"


def _is_usual_global(name: str) -> bool:
    usual = ("torch._utils._rebuild", "torch.storage.", "collections.OrderedDict")
    return name.startswith(usual) or bool(re.fullmatch(r"torch\.\w+(Storage|Size)", name))


# --- loading -------------------------------------------------------------------------


def load(ref: ModelRef) -> Model:
    """Return the model in evaluation mode, on the CPU, without gradients; cached.

    Raises:
        InputError: the file is damaged, or holds weights only.
        ConversionError: the file is TorchScript.
        UntrustedSourceError: loading would run code of the file, and it is not trusted.
    """
    return _load(ref.encoding, ref.location, ref.weights, ref.trusted)


@lru_cache
def _load(encoding: Encoding, location: str, weights: str, trusted: bool) -> Model:
    ref = ModelRef("torch", encoding, location, weights=weights, trusted=trusted)
    torch.set_num_threads(1)  # sums split over threads differ in their last bits
    # The fused transformer layer, used for inference only, answers zero at padded positions,
    # where the layers as written, as trained and as exported compute values.
    torch.backends.mha.set_fastpath_enabled(False)
    if encoding is Encoding.TORCHSCRIPT:
        raise ConversionError(
            f"'{ref.display}' is TorchScript, which PyTorch no longer exports from",
            hint="save the model with torch.export.save(torch.export.export(model, inputs), path)",
        )
    if encoding is not Encoding.PYTHON:
        _demand_trust(ref)
    if encoding is Encoding.TORCH_EXPORT:
        return _load_export(ref)
    model = reference.load(ref) if encoding is Encoding.PYTHON else _load_save(ref)
    if isinstance(model, ExportedProgram):
        return model
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"'{ref.display}' gives a {type(model).__name__}, not an nn.Module")
    if weights:
        apply_weights(model, Path(weights))
    return model.eval().requires_grad_(False).to("cpu")


def _demand_trust(ref: ModelRef) -> None:
    found = [] if ref.trusted else scan(ref)
    if found:
        raise UntrustedSourceError(
            f"loading '{ref.display}' can run code it contains: {_shown(found)}",
            hint="give --trust when you trust where it comes from",
        )


def _load_export(ref: ModelRef) -> ExportedProgram:
    _check_sums(ref.path)
    try:
        return torch.export.load(ref.location)
    except Exception as error:
        raise InputError(
            f"PyTorch {torch.__version__} cannot load '{ref.display}': {first_line(error)}",
            hint="save it again with torch.export.save of a matching PyTorch version",
        ) from error


def _load_save(ref: ModelRef) -> Any:
    _check_sums(ref.path)
    try:
        value = torch.load(ref.location, map_location="cpu", weights_only=not ref.trusted)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"'{ref.display}' needs the code of its class: {first_line(error)}",
            hint="run where that module can be imported, or give a Python reference and --weights",
        ) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise InputError(f"cannot load '{ref.display}': {first_line(error)}") from error
    if isinstance(value, torch.nn.Module):
        return value
    raise InputError(
        f"'{ref.display}' holds only weights, not a model",
        hint="give the model as a Python reference and this file with --weights",
    )


def apply_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a state dict (``.pt``, ``.pth`` or ``.safetensors``) into the module.

    Raises:
        InputError: the file is missing or damaged, or does not fit the module.
        UntrustedSourceError: the file is a pickle of more than tensors.
    """
    state = _read_state(path)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(f"'{path.name}' does not fit the model: {_shown(details)}") from None
    problems = [
        f"{kind} keys: {_shown(keys)}"
        for kind, keys in (("missing", result.missing_keys), ("unexpected", result.unexpected_keys))
        if keys
    ]
    if problems:
        raise InputError(
            f"'{path.name}' does not fit the model: {'; '.join(problems)}",
            hint="missing keys are the model's, unexpected keys the file's",
        )


def _read_state(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"there is no weights file '{path}'")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        _check_sums(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UntrustedSourceError(
            f"'{path.name}' holds more than tensors: {_shown(_scan_save(str(path)))}",
            hint="save the weights with torch.save(model.state_dict(), path) or as safetensors",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(f"cannot read the weights '{path.name}': {first_line(error)}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # checkpoints of training frameworks nest it
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise InputError(f"'{path.name}' is no state dict: it holds a {type(state).__name__}")
    return state


def _read_safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read the weights '{path.name}': {error}") from None
    return state


def _shown(items: Any) -> str:
    listed = sorted(items) if isinstance(items, set) else list(items)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
