"""The documentation does what it says: its commands run, its examples parse, its links lead on.

How a page is run, top to bottom, in a temporary directory where ``models/`` holds the trained
models:

- In ``console`` blocks, lines that begin with ``$ `` are commands and lines that begin with
  ``> `` continue the one above. A command must exit 0, or with the code that the block names:
  ``console exit=9``. Lines of output that begin with ``error:`` or ``hint:`` must be printed.
- A block with ``title="FILE"`` is written to FILE.
- In reference/python-api.md, ``python`` blocks without a title are run, one after the other.
- ``yaml`` blocks that begin with ``modelpack: 1`` must be canonical manifests.
- ``sh`` blocks are for reading only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelpack import errors, manifest, samples
from modelpack.judging import compare
from modelpack.reports import document

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS = ("export", "convert", "quantize", "validate", "package", "inspect", "doctor")
COMMON = "Common options"

_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_FILE = re.compile(r"`(?P<path>(?:modelpack|fixtures|docs|tests)/[\w./-]*\.\w+)`")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def _id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- pages ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: the first word of its info string, its attributes, its text."""

    kind: str
    attributes: dict[str, str]
    body: str


def blocks(page: Path) -> Iterator[Block]:
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        kind, *words = match["info"].split() or [""]
        attributes = {key: value.strip('"') for key, _, value in (w.partition("=") for w in words)}
        yield Block(kind, attributes, match["body"])


def commands(body: str) -> list[tuple[str, list[str]]]:
    """Each command of a console block with the lines of output shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        elif found:
            found[-1][1].append(line)
    return found


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def sections(page: Path) -> dict[str, str]:
    """The text below each second-level heading."""
    parts = re.split(r"^## +(.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        title.strip().strip("`"): body for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub forms them."""
    titles = re.findall(r"^#+ +(.+)$", prose(page), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


# --- running -------------------------------------------------------------------------


class Shell:
    """Runs commands in a directory, as a reader who follows a page does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "NO_COLOR": "1"}

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", command],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )


def check_console(shell: Shell, block: Block) -> None:
    wanted = int(block.attributes.get("exit", "0"))
    for command, shown in commands(block.body):
        done = shell(command)
        assert done.returncode == wanted, f"$ {command}\n{done.stdout}"
        for line in shown:
            if line.startswith(("error:", "hint:")):
                assert line in done.stdout, f"$ {command}\n{done.stdout}"


RUNNABLE = [
    page
    for page in PAGES
    if any(block.kind == "console" or "title" in block.attributes for block in blocks(page))
]


@pytest.mark.parametrize("page", RUNNABLE, ids=_id)
def test_commands_of_a_page_work(page: Path, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    shell = Shell(tmp_path)
    for block in blocks(page):
        if "title" in block.attributes:
            target = tmp_path / block.attributes["title"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.body, encoding="utf-8")
        elif block.kind == "console":
            check_console(shell, block)


def test_python_examples_work(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    examples = [
        block.body for block in blocks(REFERENCE / "python-api.md") if block.kind == "python"
    ]
    assert examples
    (tmp_path / "examples.py").write_text("\n".join(examples), encoding="utf-8")
    done = Shell(tmp_path)("python examples.py")
    assert done.returncode == 0, done.stdout


# --- what is shown -------------------------------------------------------------------

MANIFESTS = [
    pytest.param(block.body, id=_id(page))
    for page in PAGES
    for block in blocks(page)
    if block.kind == "yaml" and block.body.startswith("modelpack: 1")
]


@pytest.mark.parametrize("text", MANIFESTS)
def test_manifest_examples_are_canonical(text: str) -> None:
    assert manifest.dump(manifest.load(text)) == text


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_and_files_exist(page: Path) -> None:
    text = prose(page)
    for match in _LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), match["target"]
        if anchor:
            assert anchor in anchors(there), match["target"]
    if page.is_relative_to(DOCS / "adr"):
        return  # decisions also name files that were decided against
    for match in _FILE.finditer(text):
        assert (ROOT / match["path"]).exists(), match["path"]


def test_every_page_is_reached_from_the_readme() -> None:
    pending, seen = [ROOT / "README.md"], set()
    while pending:
        page = pending.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = (match["target"].partition("#")[0] for match in _LINK.finditer(prose(page)))
        pending += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert {page for page in PAGES if not page.is_relative_to(DOCS / "adr")} <= seen


# --- the reference follows the code ----------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_reference_lists_the_options_of(command: str) -> None:
    shown = Shell(ROOT)(f"modelpack {command} --help").stdout
    options = set(_OPTION.findall(shown)) - {"--help"}
    assert options, shown
    page = sections(REFERENCE / "cli.md")
    own, common = (set(_OPTION.findall(page[title])) for title in (command, COMMON))
    assert not options - own - common, "missing from reference/cli.md"
    described = set(re.findall(r"^\| `(--[a-z-]+)", page[command], flags=re.MULTILINE))
    assert not described - options, "in reference/cli.md, but not in --help"


def _exit_codes() -> dict[int, str]:
    return {kind.exit_code: name for name, kind in errors.error_types().items()}


@pytest.mark.parametrize("page", [ROOT / "README.md", REFERENCE / "cli.md"], ids=_id)
def test_exit_codes_are_listed(page: Path) -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page.read_text(), re.MULTILINE)}
    assert listed >= {0, *_exit_codes()}


def test_manifest_page_names_every_field() -> None:
    text = (REFERENCE / "manifest.md").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(manifest.json_schema())
    for definition in schema["$defs"].values():
        for name in definition.get("properties", {}):
            assert f"`{name}`" in text, name


def test_report_page_names_every_field() -> None:
    text = (REFERENCE / "validation-report.md").read_text(encoding="utf-8")
    definitions: dict[str, Any] = json.loads(document.json_schema())["$defs"]
    elsewhere = json.loads(manifest.json_schema())["$defs"]
    for title in definitions.keys() - elsewhere.keys():
        for name in definitions[title].get("properties", {}):
            assert f"`{name}`" in text, f"{title}.{name}"


def test_parity_page_has_the_figures_of_the_code() -> None:
    text = (REFERENCE / "parity.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\d.e-]+) \| ([\d.e-]+) \|", text, re.MULTILINE)
    shown = {name: (float(rtol), float(atol)) for name, rtol, atol in rows}
    used = {name: (item.rtol, item.atol) for name, item in compare.TOLERANCES.items()}
    assert shown == used
    assert f"{compare.QUANTIZED_RMS_LIMIT:g}" in text
    assert ", ".join(map(str, samples.SIZES)) in text
