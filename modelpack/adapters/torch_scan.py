"""What in the files of PyTorch could run code, found without loading them.

`torch.export.load`, `torch.jit.load` and `torch.load(weights_only=False)` run code that a file
contains, in more places than its pickles: symbolic shapes are evaluated, op names are looked up
as attributes, argument names become generated source, TorchScript can call ops that write files.
`scan` reads all of them first and accepts only what is known to be plain data, or to compute and
nothing else. It is a filter, not a sandbox.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from modelpack.adapters.pickles import (
    PickleGlobals,
    pickle_globals,
    pickle_sequence_globals,
)
from modelpack.adapters.torch_experts import BATCHED_HINT, GROUPED
from modelpack.artifact import LEGACY_SAVE, Encoding, ModelRef
from modelpack.errors import InputError, ModelpackError, first_line

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
    r"(L\['[\w.]+'\]|\.size\(\)|\.stride\(\)|\[\d+\]|\b(and|or|not|max|min)\b|[\d\s()+*/%<>=!,-])+"
)
# aten.__and__ and the like compute; other names of this form are attributes of Python objects.
_FORBIDDEN_OPS = re.compile(
    r"\.((?!__(and|or|xor|lshift|rshift)__\.)__\w+|from_file|save|load\w*)(\.|$)"
)
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
    if ref.encoding is Encoding.TORCHSCRIPT:
        return list(_scan_script(ref.location))
    if ref.encoding is Encoding.TORCH_SAVE:
        return list(scan_save(ref.location))
    if ref.encoding is Encoding.TRANSFORMERS:
        return [
            finding for file in sorted(ref.path.glob("*.bin")) for finding in scan_save(str(file))
        ]
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
            return (f"it hides members from the zip directory: {shown(records - listed)}",)
        return tuple(_odd_contents(reader, records))
    except ModelpackError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"'{path.name}' is damaged: {first_line(error)}") from None


def check_sums(path: Path) -> None:
    """Check what PyTorch's own reader does not: that the content is what was written.

    Raises:
        InputError: a member differs from its checksum.
    """
    if not zipfile.is_zipfile(path):
        return  # the layout before PyTorch 1.6, which has none
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InputError(f"'{path.name}' is damaged: {error}") from None
    if wrong is not None:
        raise InputError(f"'{path.name}' is damaged: '{wrong}' does not have its checksum")


def unknown_ops(location: str) -> list[str]:
    """The ops that an exported program calls and that are not registered here."""
    try:
        program = torch._C.PyTorchFileReader(location).get_record("models/model.json").decode()
    except (RuntimeError, UnicodeDecodeError):
        return []  # damaged, or of another layout: what is wrong is said elsewhere
    names = sorted(set(_OP.findall(program)))
    return [name for name in names if not torch._C._jit_get_schemas_for_operator(_qualified(name))]


# Branches and the like are "higher_order", and have no schema.
_OP = re.compile(r'"torch\.ops\.(?!higher_order\.)(\w+\.\w+(?:\.\w+)?)"')


def _qualified(name: str) -> str:
    return "::".join(name.split(".")[:2])


def _odd_members(names: list[str]) -> Iterator[str]:
    roots = {name.split("/", 1)[0] for name in names}
    if len(roots) != 1 or any("/" not in name for name in names):
        yield f"its members do not share one folder: {shown(roots)}"
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
            advice = f" ({BATCHED_HINT})" if GROUPED in text else ""
            yield f"an op outside of PyTorch's own: {_quoted(text)}{advice}"
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
def scan_save(location: str) -> tuple[str, ...]:
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
        pickled = _globals_of_save(content)
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


def _globals_of_save(content: bytes) -> PickleGlobals:
    """What the pickle of a ``torch.save`` file names: a member of a zip, or one of several."""
    if content.startswith(LEGACY_SAVE):
        return pickle_sequence_globals(content, _LEGACY_PICKLES)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return pickle_globals(archive.read(member))


# Magic number, protocol, system, the object, keys of its storages; their bytes follow.
_LEGACY_PICKLES = 5


def _is_usual_global(name: str) -> bool:
    usual = ("torch._utils._rebuild", "torch.storage.", "collections.OrderedDict")
    return name.startswith(usual) or bool(re.fullmatch(r"torch\.\w+(Storage|Size)", name))


# --- TorchScript ---------------------------------------------------------------------

# Ops of these only compute. Others send, receive, load or keep.
_COMPUTING = {"aten", "prim", "prims", "quantized", "torchvision"}
# Of them, those that reach outside of the process.
_REACHING = re.compile(r"save|from_file|rpc_\w+|_record_function\w*")
_SCRIPT_GLOBAL = re.compile(
    r"__torch__\.(?!torch\.classes\.).*|__torch__\.torch\.classes\.quantized\..*"
    r"|torch\._utils\._rebuild\w*|torch\.\w+(Storage|Size)|torch\.jit\._pickle\.\w+"
    r"|collections\.OrderedDict|torch\.device"
)


@lru_cache
def _scan_script(location: str) -> tuple[str, ...]:
    """Read the program of a TorchScript file, which runs in an interpreter of its own.

    That interpreter has no way to Python, but ops that write files, and it runs
    ``__setstate__`` methods while the file is loaded.
    """
    path = Path(location)
    check_sums(path)
    try:
        reader = torch._C.PyTorchFileReader(location)
        records = sorted(reader.get_all_records())
        found: list[str] = []
        for member in records:
            if member.endswith(".py"):
                code = reader.get_record(member).decode("utf-8", errors="replace")
                found += _odd_code(code, member)
            elif member in {"data.pkl", "constants.pkl"}:
                found += _odd_globals(pickle_globals(reader.get_record(member)), member)
    except RuntimeError as error:
        raise InputError(f"'{path.name}' is damaged: {first_line(error)}") from None
    return tuple(dict.fromkeys(found))


def _odd_code(code: str, member: str) -> Iterator[str]:
    if "#" in code:  # PyTorch writes none; a comment could part a name from its namespace
        yield f"a comment, or text with '#', in '{member}'"
    for name in sorted(set(re.findall(r"[A-Za-z_]\w*", code))):
        if _REACHING.fullmatch(name):
            yield f"a call of '{name}' in '{member}'"
    for match in re.finditer(r"\bops\b(\.(\w+)\.\w+)?", code):
        if match[2] not in _COMPUTING:
            yield f"an op outside of PyTorch's own in '{member}': {_line_at(code, match.start())}"
    for match in re.finditer(r"\bclasses\b", code):
        around = code[max(match.start() - 16, 0) : match.end() + 11]
        if not around.endswith("__torch__.torch.classes.quantized."):
            yield f"a class outside of PyTorch's own in '{member}': {_line_at(code, match.start())}"


def _odd_globals(pickled: PickleGlobals, member: str) -> Iterator[str]:
    for name in pickled.names:
        if not _SCRIPT_GLOBAL.fullmatch(name):
            yield f"an object of {_quoted(name)} in '{member}'"
    if pickled.problem:
        yield f"something in '{member}' that cannot be read ({pickled.problem})"


def _line_at(code: str, place: int) -> str:
    return _quoted(code[code.rfind("\n", 0, place) + 1 :].partition("\n")[0].strip())


# --- words for findings --------------------------------------------------------------


def shown(items: Iterable[str]) -> str:
    """List a few of the items, and say how many there are more."""
    listed = sorted(items) if isinstance(items, set) else list(items)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


_SHOWN = 12


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
