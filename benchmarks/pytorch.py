"""PyTorch architectures through ``modelpack convert`` to ONNX, SavedModel and TFLite.

python benchmarks/pytorch.py make  WORK [NAME ...]   build and save as exported programs
python benchmarks/pytorch.py check WORK [NAME ...]   convert what has no result yet
python benchmarks/pytorch.py page  WORK              the page of the documentation

``make`` needs PyTorch, torchvision, timm and transformers; ``check`` needs modelpack and PyTorch
alone, but for networks that PyTorch does not export by itself: they are given to the command as
Python references, which need the libraries as well. The command itself compares what it wrote
with PyTorch, at several sizes of each dynamic dimension: the verdict is its exit code and its
manifest.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import yaml

TARGETS = ("onnx", "savedmodel", "tflite")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "pytorch-architectures.md"

# What the programs are traced with, and the most that positions and windows are made for.
_TRACED = {"batch": 3, "length": 13, "target_length": 7}
_LONGEST = 64

_SECONDS = 400
_MEMORY = "6G"


def main() -> int:
    """Run one of the parts; return how many architectures failed in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("make", "check", "page", "make-one"))
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--to", action="append", choices=TARGETS, help="all by default")
    given = parser.parse_args()
    work, names = given.work.resolve(), given.names
    if given.part == "page":
        PAGE.write_text(page(work))
        return 0
    if given.part == "make-one":
        make_one(work, *names)
        return 0
    return make(work, names) if given.part == "make" else check(work, names, given.to or [*TARGETS])


# --- make ----------------------------------------------------------------------------------


def make(work: Path, names: list[str]) -> int:
    """Save programs, all that are not there by default."""
    from architectures import TABLE

    failed = 0
    missing = [name for name in TABLE if not (work / "made" / f"{name}.json").exists()]
    for name in names or missing:
        words = [sys.executable, "-W", "ignore", __file__, "make-one", str(work), name]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
        said = run.stderr if run.returncode else run.stdout
        print(f"{name:22}{_last_line(said)}", flush=True)
        failed += bool(run.returncode)
    return failed


def make_one(work: Path, name: str) -> None:
    """Save one program, if there is one, and how much its answers depend on each input."""
    import torch
    from architectures import TABLE, create
    from networks import sensitivity

    torch.set_num_threads(1)
    model = create(name)
    dynamic = {"batch"} if _is_recurrent(model) else set(_TRACED)
    folder = work / "made"
    folder.mkdir(parents=True, exist_ok=True)
    inputs = TABLE[name].inputs
    about = {
        "kind": TABLE[name].kind,
        "inputs": [_shape(item.dims, dynamic) for item in inputs],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sensitivity": sensitivity(name, model),
        "reference": [],
    }
    try:
        torch.export.save(_exported(name, model, dynamic), folder / f"{name}.pt2")
    except Exception as error:  # whatever PyTorch raises
        feeds = zip(inputs, feed_of(name), strict=True)
        about["reference"] = [_described(item, tensor) for item, tensor in feeds]
        print(f"given as a reference: {_python_error(f'{type(error).__name__}: {error}')}")
    (folder / f"{name}.json").write_text(json.dumps(about))


def feed_of(name: str) -> tuple[Any, ...]:
    """Inputs of the sizes that programs are traced with."""
    from architectures import feed

    return feed(name, _TRACED, seed=0)


def _described(item: Any, tensor: Any) -> str:
    """An input as the command takes it: name, dtype, dimensions."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{item.name}:{dtype}[{','.join(map(str, item.dims))}]"


def _is_recurrent(model: Any) -> bool:
    """Whether there are layers whose length `torch.export` fixes."""
    import torch

    return any(isinstance(layer, torch.nn.RNNBase) for layer in model.modules())


def _exported(name: str, model: Any, dynamic: Set[str]) -> Any:
    import torch
    from architectures import TABLE
    from networks import is_variadic

    dims = {
        dim: torch.export.Dim(dim, min=1, max=None if dim == "batch" else _LONGEST)
        for dim in sorted(dynamic)
    }
    shapes = tuple(
        {axis: dims[dim] for axis, dim in enumerate(item.dims) if dim in dims}
        for item in TABLE[name].inputs
    )
    return torch.export.export(
        model,
        feed_of(name),
        dynamic_shapes=(shapes,) if is_variadic(model) else shapes,
    )


def _shape(dims: tuple[int | str, ...], dynamic: Set[str]) -> str:
    sizes = [_TRACED.get(str(dim), dim) if dim not in dynamic else dim for dim in dims]
    return f"[{', '.join(map(str, sizes))}]"


# --- check ---------------------------------------------------------------------------------


def check(work: Path, names: list[str], targets: list[str]) -> int:
    """Convert programs to the formats that they have no result of yet."""
    failed = 0
    results = work / "converted"
    results.mkdir(exist_ok=True)
    for name in names or sorted(path.stem for path in (work / "made").glob("*.json")):
        found = _found(work, name)
        missing = tuple(target for target in targets if target not in found)
        if not missing:
            continue
        begin = time.perf_counter()
        found |= _converted(work, name, missing)
        (results / f"{name}.json").write_text(json.dumps(found))
        said = ", ".join(f"{target}: {found[target]['verdict']}" for target in missing)
        print(f"{name:22}{said}, {time.perf_counter() - begin:.0f} s", flush=True)
        failed += any(found[target]["verdict"] != "passed" for target in missing)
    return failed


def _found(work: Path, name: str) -> dict[str, dict[str, Any]]:
    path = work / "converted" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _converted(work: Path, name: str, targets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Convert to all formats at once; where that fails, to each alone, to learn which it is."""
    together = _verdicts(work, name, targets)
    if len(targets) == 1 or all("error" in together[target] for target in targets):
        return together
    alone = _verdicts(work, name, targets[:1])
    if alone[targets[0]] == together[targets[0]]:  # not even the first step
        return together
    return alone | {target: _verdicts(work, name, (target,))[target] for target in targets[1:]}


def _verdicts(work: Path, name: str, targets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What the command says of each artifact that it wrote, or why it wrote none."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        command = [sys.executable, "-m", "modelpack", "convert", "--quiet"]
        command += [*_source(work, name), "-o", folder + "/out"]
        command += [word for target in targets for word in ("--to", target)]
        command += ["--timeout", str(_SECONDS), "--memory-limit", _MEMORY]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            failure = {"verdict": f"exit code {run.returncode}", "reason": _reason(run.stderr)}
            return dict.fromkeys(targets, failure)
        manifest = yaml.safe_load((Path(folder) / "out" / "modelpack.yaml").read_text())
    return {item["format"]: _verdict(item["parity"]) for item in manifest["artifacts"]}


def _source(work: Path, name: str) -> list[str]:
    """What the command is given: a program, or a reference with its inputs."""
    described = json.loads((work / "made" / f"{name}.json").read_text()).get("reference")
    if not described:
        return [str(work / "made" / f"{name}.pt2")]
    factory = f"{Path(__file__).resolve().with_name('architectures.py')}:create"
    words = [word for text in described for word in ("--input", text)]
    return [factory, "--factory-args", json.dumps([name]), *words]


def _verdict(parity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "verdict": parity["verdict"],
        "reason": parity.get("reason", ""),
        "error": max(item["max_rel"] for item in parity["outputs"]),
        "noise": max(item["max_noise"] or 0.0 for item in parity["outputs"]),
        "cases": parity["cases"],
    }


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    at = next((i for i, line in enumerate(lines) if line.startswith("error: ")), None)
    if at is None:
        return _last_line(said)
    error = lines[at].removeprefix("error: ")
    listed = [line for line in lines if line.startswith("- ")]
    if error.endswith(":") and not listed:
        listed = lines[at + 1 : at + 2]
    return " ".join([error, *listed[:4]])


def _python_error(said: str) -> str:
    """The first line of the error that a traceback ends with."""
    errors = re.findall(r"^[\w.]*(?:Error|Exception|SymNode): .*", said, re.MULTILINE)
    return errors[-1][:300] if errors else _last_line(said)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing")


# --- what came out -------------------------------------------------------------------------


def page(work: Path) -> str:
    """The page: counts, a table, and the reason of each failure."""
    from networks import SMALLEST_SENSITIVITY

    made = {path.stem: json.loads(path.read_text()) for path in (work / "made").glob("*.json")}
    found = {
        name: _found(work, name)
        for name in sorted(made, key=lambda name: (made[name]["kind"], name))
        if made[name]["sensitivity"] >= SMALLEST_SENSITIVITY and _found(work, name)
    }
    counts = ", ".join(f"{_TITLES[target]} {_count(found, target)}" for target in TARGETS)
    rows = [
        "| " + " | ".join(_row(name, made[name], result)) + " |" for name, result in found.items()
    ]
    return _PAGE.format(
        number=len(found),
        counts=counts,
        rows="\n".join(rows),
        reasons="\n".join(_reasons(found)) or "None.",
    )


_TITLES = {"onnx": "ONNX", "savedmodel": "SavedModel", "tflite": "TFLite"}

_PAGE = """\
# PyTorch architectures

Made by `python benchmarks/pytorch.py page WORK` from results of its other parts.

Each architecture of torchvision, timm, transformers or plain PyTorch is built with random weights
that make its answers depend on every input, saved with `torch.export.save` with a dynamic batch
(and length), and converted with [`modelpack convert`](cli.md), which compares each artifact with
PyTorch at several sizes. Those that `torch.export` does not export by itself are given to the
command as [Python references](../how-to/convert-pytorch.md#write-a-reference) (`net.py:create`).
The numbers are the largest error, relative to the largest value of the output.

{number} architectures; right of those that were tried: {counts}.

| architecture | kind | given as | inputs | parameters | ONNX | SavedModel | TFLite |
|---|---|---|---|---|---|---|---|
{rows}

## Why some are not

{reasons}
"""


def _count(results: Mapping[str, Mapping[str, Any]], target: str) -> str:
    tried = [result[target]["verdict"] for result in results.values() if target in result]
    return f"{tried.count('passed')} of {len(tried)}"


def _row(name: str, about: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    parameters = f"{about['parameters'] / 1e6:.2f} M" if about["parameters"] else ""
    given = "reference" if about.get("reference") else "`.pt2`"
    cells = [name, about["kind"], given, " ".join(about["inputs"]), parameters]
    return cells + [_cell(result.get(target)) for target in TARGETS]


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not tried"
    return f"{found['error']:.1e}" if found["verdict"] == "passed" else f"**{found['verdict']}**"


def _reasons(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each reason of an architecture, with the formats that it is of."""
    for name, result in results.items():
        reasons: dict[str, list[str]] = {}
        for target in TARGETS:
            if target in result and result[target]["verdict"] != "passed":
                reasons.setdefault(result[target]["reason"], []).append(_TITLES[target])
        for reason, titles in reasons.items():
            yield f"- {name}, {' and '.join(titles)}: {reason}"


if __name__ == "__main__":
    sys.exit(min(main(), 1))
