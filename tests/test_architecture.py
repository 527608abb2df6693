"""Rules about the whole: what is imported when, who may print, how errors are told apart."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modelpack
from modelpack import errors

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modelpack"
FRAMEWORKS = {"tensorflow", "keras", "torch", "sklearn", "onnxruntime", "onnx"}

# A program that runs the command line and then says what it had to import for it.
RUN = """
import sys
from modelpack.cli.app import run
code = run(sys.argv[1:])
sys.stdout.flush()
print("\\nLOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
sys.exit(code)
"""


def fresh(directory: Path, code: str, *arguments: str) -> set[str]:
    """Run a program in a fresh interpreter; return the top-level modules it says it loaded."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("\nLOADED ")[2].split())
    assert "modelpack" in loaded
    return loaded


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny ONNX model, written in a process of its own like everything else here."""
    code = """
import onnx, sys
value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"])
node = onnx.helper.make_node("Relu", ["x"], ["y"])
graph = onnx.helper.make_graph([node], "g", [value("x")], [value("y")])
opset = [onnx.helper.make_opsetid("", 18)]
onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "m.onnx"], check=True, timeout=120)
    return tmp_path / "m.onnx"


# --- import budget --------------------------------------------------------------------


def test_the_check_itself_notices_an_imported_framework(tmp_path: Path) -> None:
    code = "import onnx, modelpack, sys; print('\\nLOADED', *sys.modules)"
    assert fresh(tmp_path, code) & FRAMEWORKS == {"onnx"}


def test_importing_the_package_imports_no_framework_and_no_numpy(tmp_path: Path) -> None:
    code = "import modelpack, sys; print('\\nLOADED', *sys.modules)"
    assert fresh(tmp_path, code) & (FRAMEWORKS | {"numpy", "yaml", "typer"}) == set()


@pytest.mark.parametrize("module", ["signature", "artifact", "manifest", "routes", "errors"])
def test_the_core_needs_no_framework_and_no_numpy(tmp_path: Path, module: str) -> None:
    code = f"import modelpack.{module}, sys; print('\\nLOADED', *sys.modules)"
    assert fresh(tmp_path, code) & (FRAMEWORKS | {"numpy"}) == set()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["convert", "--help"], ["quantize", "--help"], ["--version"], ["doctor"]],
    ids=" ".join,
)
def test_help_and_doctor_import_no_framework(tmp_path: Path, arguments: list[str]) -> None:
    assert fresh(tmp_path, RUN, *arguments) & FRAMEWORKS == set()


def test_inspecting_an_onnx_file_imports_no_framework_in_the_parent(
    tmp_path: Path, model: Path
) -> None:
    assert fresh(tmp_path, RUN, "inspect", str(model)) & FRAMEWORKS == set()


def test_inspecting_an_onnx_file_imports_only_onnx_in_the_worker(
    tmp_path: Path, model: Path
) -> None:
    code = f"""
import sys
from modelpack.adapters import onnx as adapter
from modelpack.artifact import Encoding, ModelRef
adapter.describe(ModelRef("onnx", Encoding.ONNX, {str(model)!r}))
print("\\nLOADED", *sys.modules)
"""
    assert fresh(tmp_path, code) & FRAMEWORKS <= {"onnx", "onnxruntime"}


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"], ["inspect"]])
def test_the_module_runs_as_a_command(tmp_path: Path, model: Path, arguments: list[str]) -> None:
    more = [str(model)] if arguments == ["inspect"] else []
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-P", "-m", "modelpack", *arguments, *more],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = set(re.findall(r"^import time:.*\| +([A-Za-z0-9_]+)", done.stderr, re.MULTILINE))
    assert "modelpack" in imported
    assert imported & FRAMEWORKS == set()


# --- public names ---------------------------------------------------------------------


def test_every_public_name_resolves_and_says_what_it_is() -> None:
    assert modelpack.__all__ == sorted(modelpack.__all__)
    for name in modelpack.__all__:
        assert getattr(modelpack, name).__doc__, name
    assert set(modelpack.__all__) == set(modelpack._HOMES)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        modelpack.nothing  # noqa: B018


# --- errors ---------------------------------------------------------------------------


def documented() -> dict[str, tuple[str, int]]:
    """Parent and exit code of each error, as the tree in the docstring of errors.py says."""
    found: dict[str, tuple[str, int]] = {}
    latest = ("ModelpackError", 1)
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    (?P<branch>[│├└─ ]*)(?P<name>\w+Error)\s*(?P<code>\d+)?", line)
        if match is None:
            continue
        nested = match["branch"].count("─") and match["branch"].startswith(("│", "    "))
        name, code = match["name"], match["code"]
        if nested:
            found[name] = latest
        elif not match["branch"]:
            found[name] = ("ModelpackError", int(code))
        else:
            latest = (name, int(code))
            found[name] = ("ModelpackError", int(code))
    return found


def test_the_documented_tree_of_errors_is_the_real_one() -> None:
    tree = documented()
    assert tree.keys() == errors.error_types().keys()
    for name, kind in errors.error_types().items():
        parent, code = tree[name]
        assert issubclass(kind, errors.error_types()[parent])
        assert kind.exit_code == code, name


def test_exit_codes_tell_the_kinds_of_errors_apart() -> None:
    kinds = [errors.ModelpackError, *errors.ModelpackError.__subclasses__()]
    assert [kind.exit_code for kind in kinds] == list(range(1, 11))


# --- imports and printing -------------------------------------------------------------


def test_the_import_contracts_hold(tmp_path: Path) -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [tool, "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def spoken(tree: ast.AST) -> list[int]:
    """Lines that print, exit, or touch the standard streams."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in {"sys.exit", "sys.stdout", "sys.stderr", "os._exit", "console.print"}:
                found.append(node.lineno)
            if name in {"typer.echo", "typer.Exit", "typer.secho"}:
                found.append(node.lineno)
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id in {"print", "exit", "quit", "input"}:
            found.append(called.lineno)
        if isinstance(node, ast.Raise) and "SystemExit" in ast.dump(node):
            found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "sys":
            found += [node.lineno for name in node.names if name.name in {"exit", "stdout"}]
    return found


def child_half(tree: ast.Module) -> set[int]:
    """Lines of the functions of worker.py that run in the child, which has its own streams."""
    return {
        line
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in {"_main", "_private_streams"}
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def test_the_scan_for_printing_finds_every_way_to_print() -> None:
    ways = ["print(1)", "sys.exit(1)", "sys.stdout.write('')", "raise SystemExit", "exit()"]
    ways += ["from sys import stdout", "console.print('')", "typer.echo('')", "os._exit(1)"]
    for way in ways:
        assert spoken(ast.parse(way)), way
    assert not spoken(ast.parse("printer(1); log.info('print'); pprint.pformat(1)"))


def test_only_the_command_line_prints_and_exits() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.is_relative_to(PACKAGE / "cli"):
            continue
        tree = ast.parse(file.read_text("utf-8"))
        allowed = child_half(tree) if file.name == "worker.py" else set()
        name = file.relative_to(ROOT).as_posix()
        found += [f"{name}:{line}" for line in spoken(tree) if line not in allowed]
    assert found == []
