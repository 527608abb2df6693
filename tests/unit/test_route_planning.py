from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack import routes
from modelpack.errors import InputError, ModelpackError, NoRouteError
from modelpack.routes import CONVERTERS, FORMATS, Converter, Route, find_route

REQUIRED = {"describe", "run"}


def edges(*pairs: str) -> tuple[Converter, ...]:
    """Converters such as ``ab`` (from a to b), whose entries tell parallel ones apart."""
    return tuple(Converter(pair[0], pair[1], f"{pair}{n}:run") for n, pair in enumerate(pairs))


def walked(route: Route) -> str:
    return route.steps[0].source + "".join(step.target for step in route.steps)


@pytest.mark.parametrize(
    ("table", "wanted", "found"),
    [
        (["ab"], "ab", "ab"),
        (["ab", "bc", "cd"], "ad", "abcd"),
        (["ab", "bc", "ac"], "ac", "ac"),
        (["ab", "bc", "cd", "ad"], "ad", "ad"),
        (["ac", "ab", "bd", "cd"], "ad", "acd"),
        (["ab", "ac", "cd", "bd"], "ad", "abd"),
        (["aa", "ab"], "aa", "aa"),
        (["ab", "ba"], "aa", "aba"),
        (["aa", "ab", "ba"], "ab", "ab"),
        (["ab", "bb", "bc", "ca"], "ac", "abc"),
    ],
)
def test_the_shortest_route_is_found_and_ties_go_by_table_order(
    table: list[str], wanted: str, found: str
) -> None:
    assert walked(find_route(wanted[0], wanted[1], edges(*table))) == found


def test_between_parallel_converters_the_first_listed_wins() -> None:
    first, second = edges("ab", "ab")
    assert find_route("a", "b", (first, second)).steps == (first,)
    assert find_route("a", "b", (second, first)).steps == (second,)


def shortest_length(pairs: list[str], source: str, target: str) -> int | None:
    """By brute force over all walks, shortest first."""
    for length in range(1, 6):
        for walk in product(pairs, repeat=length):
            linked = all(one[1] == two[0] for one, two in pairwise(walk))
            if linked and walk[0][0] == source and walk[-1][1] == target:
                return length
    return None


@given(
    st.lists(st.text("abcd", min_size=2, max_size=2), max_size=6, unique=True),
    st.sampled_from("abcd"),
    st.sampled_from("abcd"),
)
def test_no_shorter_route_exists_than_the_one_found(
    pairs: list[str], source: str, target: str
) -> None:
    expected = shortest_length(pairs, source, target)
    try:
        found = len(find_route(source, target, edges(*pairs)).steps)
    except NoRouteError:
        found = None
    assert found == expected


def test_without_a_route_the_reachable_formats_are_listed() -> None:
    with pytest.raises(NoRouteError, match="no route leads from a to z") as caught:
        find_route("a", "z", edges("ac", "cb", "de"))
    assert caught.value.hint == "from a there are routes to: b, c"
    assert caught.value.exit_code == 5


def test_without_any_route_that_is_said() -> None:
    with pytest.raises(NoRouteError) as caught:
        find_route("a", "z", edges("bz"))
    assert caught.value.hint.endswith("nothing")


def test_a_route_prints_its_formats_in_order() -> None:
    assert str(find_route("a", "c", edges("ab", "bc"))) == "a -> b -> c"
    assert str(CONVERTERS[0]).startswith("keras -> savedmodel (modelpack.adapters.keras:")


def test_the_real_table_leads_where_it_promises() -> None:
    assert str(find_route("keras", "onnx", CONVERTERS)) == "keras -> savedmodel -> onnx"
    assert str(find_route("keras", "tflite", CONVERTERS)) == "keras -> savedmodel -> tflite"
    assert str(find_route("torch", "onnx", CONVERTERS)) == "torch -> onnx"
    assert str(find_route("sklearn", "onnx", CONVERTERS)) == "sklearn -> onnx"
    assert str(find_route("onnx", "onnx", CONVERTERS)) == "onnx -> onnx"
    assert str(find_route("torch", "savedmodel", CONVERTERS)) == "torch -> onnx -> savedmodel"
    assert str(find_route("sklearn", "tflite", CONVERTERS)) == "sklearn -> onnx -> tflite"
    assert str(find_route("tflite", "savedmodel", CONVERTERS)) == "tflite -> onnx -> savedmodel"


# --- entries --------------------------------------------------------------------------


def functions(module: str) -> dict[str, list[str]]:
    """Argument names of the functions a module defines or takes from another of ours.

    The module, which needs its framework, is read and not imported.
    """
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None
    found = {}
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = [argument.arg for argument in node.args.args]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelpack.adapt"):
            theirs = functions(node.module or "")
            found |= {name.name: theirs[name.name] for name in node.names if name.name in theirs}
    return found


@pytest.mark.parametrize("converter", CONVERTERS, ids=str)
def test_every_converter_entry_names_a_function_of_three_arguments(converter: Converter) -> None:
    module, _, name = converter.entry.partition(":")
    assert len(functions(module)[name]) == 3


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_has_an_adapter_with_what_it_promises(form: routes.Format) -> None:
    found = functions(form.adapter)
    assert set(found) >= REQUIRED | ({"scan"} if form.can_run_code else set())
    assert len(found["describe"]) == 1
    assert len(found["run"]) == 4
    if form.quantizer:
        module, _, name = form.quantizer.partition(":")
        assert len(functions(module)[name]) == 3


def test_every_converter_joins_known_formats_and_ends_in_an_artifact() -> None:
    by_name = {form.name: form for form in FORMATS}
    for converter in CONVERTERS:
        assert converter.source in by_name
        assert by_name[converter.target].artifact


def test_artifact_names_and_suffixes_are_not_shared() -> None:
    names = [form.artifact for form in FORMATS if form.artifact]
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert len(set(names)) == len(names)
    assert len(set(suffixes)) == len(suffixes)


def test_only_formats_that_can_be_written_can_be_asked_for() -> None:
    assert routes.format_named("onnx").artifact == "model.onnx"
    for name in ("keras", "", "ONNX", "coreml"):
        with pytest.raises(InputError, match="unknown format"):
            routes.format_named(name)


# --- plugins --------------------------------------------------------------------------


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path for distributions; what was cached is forgotten around it."""
    monkeypatch.syspath_prepend(tmp_path)
    routes.formats.cache_clear()
    routes.converters.cache_clear()
    yield tmp_path
    routes.formats.cache_clear()
    routes.converters.cache_clear()


def install(root: Path, module: str, code: str, entry_points: str) -> None:
    (root / f"{module}.py").write_text(code)
    metadata = root / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)


def test_other_distributions_add_formats_and_converters(plugins: Path) -> None:
    install(
        plugins,
        "modelpack_toy_plugin",
        "from modelpack.routes import Converter, Format\n"
        "toy = Format('toy', 'modelpack_toy_plugin', artifact='model.toy', suffixes=('.toy',))\n"
        "edge = Converter('onnx', 'toy', 'modelpack_toy_plugin:to_toy')\n"
        "short = Converter('keras', 'onnx', 'modelpack_toy_plugin:to_onnx')\n"
        "rival = Converter('torch', 'onnx', 'modelpack_toy_plugin:to_onnx')\n",
        "[modelpack.formats]\ntoy = modelpack_toy_plugin:toy\n"
        "[modelpack.converters]\nb = modelpack_toy_plugin:short\n"
        "c = modelpack_toy_plugin:rival\na = modelpack_toy_plugin:edge\n",
    )
    assert routes.targets() == ("onnx", "savedmodel", "tflite", "toy")
    assert routes.format_named("toy").suffixes == (".toy",)
    assert str(find_route("sklearn", "toy")) == "sklearn -> onnx -> toy"
    assert [step.target for step in routes.converters()[-3:]] == ["toy", "onnx", "onnx"]
    # A shorter route is taken, an equally long one is not.
    assert str(find_route("keras", "onnx")) == "keras -> onnx"
    assert find_route("torch", "onnx").steps[0].entry == "modelpack.adapters.torch:to_onnx"


def test_a_plugin_of_the_wrong_kind_is_named(plugins: Path) -> None:
    install(
        plugins,
        "modelpack_wrong_plugin",
        "thing = 'not a format'\n",
        "[modelpack.formats]\nthing = modelpack_wrong_plugin:thing\n",
    )
    with pytest.raises(ModelpackError, match=r"'thing' of modelpack\.formats is no Format"):
        routes.formats()
