"""The HTML page, JUnit XML and JSON of validation reports."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.manifest import Source
from modelpack.parity import ParityReport, TensorDiff, Tolerance, Verdict, unverified
from modelpack.reports import charts, words
from modelpack.reports.document import document, json_schema
from modelpack.reports.html import page
from modelpack.reports.junit import junit
from modelpack.signature import Signature, TensorSpec
from modelpack.steps import Finding
from modelpack.validation import (
    ArtifactResult,
    Bench,
    Change,
    Departure,
    Histogram,
    KindError,
    OutputDetails,
    Score,
    TensorError,
    ValidationReport,
)

HOSTILE = "<script>alert('\"&')</script>"

DIFF = TensorDiff(
    name="logits",
    max_abs=0.25,
    max_rel=0.01,
    mean_abs=0.1,
    rms_rel=0.02,
    elements=300,
    mismatches=7,
    flips=5,
    ties=1,
    max_noise=31.0,
)
DETAILS = OutputDetails(
    "logits",
    histogram=Histogram("noise floor", 8.0, exact=40, first=-3, counts=(5, 0, 200, 40, 8, 7)),
    kinds=(KindError("", 4, 31.0), KindError("zero", 1, 0.0), KindError("extreme", 1, 2.5)),
    changes=(Change("cat", "dog", 4), Change("dog", "cat", 2)),
    changed=6,
)
DEPARTURE = Departure(
    tensor="conv",
    op="Conv",
    node="conv_1",
    reference="block",
    reference_op="Conv2D",
    error=0.3,
    error_before=1e-7,
    confirmed=True,
    curve=(
        TensorError("a", "Relu", "a", 1e-7),
        TensorError("conv", "Conv", "block", 0.3),
        TensorError("odd", "Add", "odd", float("inf")),
    ),
)
FAILED = ArtifactResult(
    path="model.onnx",
    format="onnx",
    precision="float32",
    size=1_400_000,
    parity=ParityReport(
        Verdict.FAILED,
        "keras source",
        "onnxruntime 1.0",
        noise_limit=8.0,
        cases=6,
        rows=30,
        outputs=(DIFF,),
        reason="output 'logits': 7 of 300 elements differ",
    ),
    structure=(Finding("signature", True, "as promised"), Finding("checker", True, "onnx")),
    digest="sha256:12ab",
    signature=Signature(
        (TensorSpec.parse("x:float32[n,4]"),), (TensorSpec.parse("logits:float32[n,3]"),)
    ),
    scores=(
        Score("accuracy", 0.9, 300, "keras source", 0.95, -0.08, -0.02),
        Score("f1", 0.88, 300, "keras source", 0.94, -0.09, -0.02),
    ),
    bench=Bench(1.5, 2.25, 100, 80_000_000),
    details=(DETAILS,),
    departure=DEPARTURE,
)
PASSED = replace(
    FAILED,
    path="saved_model",
    parity=replace(
        FAILED.parity, verdict=Verdict.PASSED, outputs=(replace(DIFF, mismatches=0),), reason=""
    ),
    details=(),
    departure=None,
)
UNSOUND = replace(
    PASSED,
    path="model.tflite",
    parity=unverified("the structure does not hold"),
    structure=(Finding("signature", False, "output 'y' is missing"),),
)
SILENT = replace(
    PASSED,
    path="quiet.onnx",
    parity=replace(PASSED.parity, verdict=Verdict.INCONCLUSIVE, reason="constant answers"),
)
ALONE = ArtifactResult("bare.onnx", "onnx", "float32", 12, unverified("no reference"))
SOURCE = Source(
    "keras", "m.keras", "sha256:00", {"file": "w", "digest": "sha256:1"}, {"keras": "3"}
)
REPORT = ValidationReport("digits", (FAILED, PASSED, UNSOUND, SILENT, ALONE), "0.1.0", SOURCE)


def named(name: str) -> ValidationReport:
    """The report with a name wherever there is one."""
    diff = replace(DIFF, name=name)
    details = replace(
        DETAILS,
        name=name,
        kinds=(KindError(name, 1, 3.0), KindError("", 1, 1.0)),
        changes=(Change(name, "dog", 4),),
    )
    departure = replace(
        DEPARTURE, tensor=name, op=name, curve=(TensorError(name, name, name, 0.1),)
    )
    artifact = replace(
        FAILED,
        path=name,
        format=name,
        precision=name,
        parity=replace(FAILED.parity, reference=name, runtime=name, outputs=(diff,), reason=name),
        structure=(Finding(name, False, name),),
        digest=name,
        scores=(replace(FAILED.scores[0], metric=name, compared_with=name),),
        details=(details,),
        departure=departure,
    )
    return ValidationReport(name, (artifact,), name, Source(name, name, name, {name: name}))


# --- HTML ----------------------------------------------------------------------------

_EMPTY = {"meta", "br", "link", "img"}


class Reader(HTMLParser):
    """Reads a page; refuses tags that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def figures(self) -> list[str]:
        return [attributes["aria-label"] or "" for tag, attributes in self.tags if tag == "svg"]


def test_the_page_says_what_was_found() -> None:
    words = Reader(page(REPORT)).words
    for item in (
        *("digits", "failed", "inconclusive", "unverified", "1.4 MB", "keras source"),
        *("output 'logits': 7 of 300 elements differ", "signature: output 'y' is missing"),
        *("8 times the noise floor", "sha256:12ab", "m.keras (keras)", "x:float32[n,4]"),
        *("1.5 ms, p95 2.25 ms", "80.0 MB", "-0.05 (-0.08 to -0.02)", "conv, computed by Conv"),
    ):
        assert item in words, item


def test_the_page_shows_every_figure_there_is_data_for() -> None:
    figures = Reader(page(REPORT)).figures()
    for start in (
        *("Differences of accuracy", "Differences of f1", "Sizes", "Latencies", "Peak memory"),
        *("Errors of output logits", "Largest error by kind", "Errors layer by layer"),
    ):
        assert sum(label.startswith(start) for label in figures) == 1, start
    assert Reader(page(ValidationReport("bare", (ALONE,)))).figures() == ["Sizes"]


def test_the_confusion_counts_what_went_where() -> None:
    text = page(ValidationReport("m", (FAILED,)))
    table = Reader(
        text[text.index('<table class="confusion">') : text.index("</table></div></figure>") + 8]
    )
    cells = [data.strip() for data in table.text if data.strip()]
    assert cells == ["cat", "dog", "cat", "4", "dog", "2"]


def test_changes_between_rare_classes_are_counted_together() -> None:
    changes = tuple(Change(f"a{index}", f"b{index}", 1) for index in range(20))
    details = replace(DETAILS, changes=changes, changed=30)
    text = page(ValidationReport("m", (replace(FAILED, details=(details,)),)))
    shown = text.count('<td style="--share')
    assert f"30 rows; {30 - shown} between other classes are not shown" in text


def test_the_page_needs_nothing_else() -> None:
    text = page(named("https://example.org/x.js"))
    reader = Reader(text)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object"}
    for _, attributes in reader.tags:
        assert not {"src", "href", "onload", "onclick", "xlink:href"} & attributes.keys()
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_names_are_text_wherever_they_stand() -> None:
    text = page(named(HOSTILE))
    assert "<script" not in text
    assert "<script>" in Reader(text).words
    assert text.count("&lt;script&gt;") >= 20


@settings(max_examples=60)
@given(st.text(st.characters(), max_size=20))
def test_any_name_makes_a_page_and_a_document(name: str) -> None:
    Reader(page(named(name)))
    page(named(name)).encode()
    ElementTree.fromstring(junit(named(name)))


def test_the_same_report_is_the_same_bytes() -> None:
    assert page(REPORT) == page(msgspec.convert(msgspec.to_builtins(REPORT), ValidationReport))
    assert junit(REPORT) == junit(replace(REPORT))


@pytest.mark.parametrize(
    "histogram",
    [
        Histogram("noise floor", 8.0),
        Histogram("noise floor", 65536.0, exact=1),
        Histogram("tolerance", 1.0, 0, -10, (1,) * 51, 3),
        Histogram("standard deviation", 0.3, 0, 2, (7,)),
        Histogram("noise floor", 8.0, 0, 0, (10**9,), 1),
    ],
)
def test_every_bar_of_a_histogram_is_inside_of_the_picture(histogram: Histogram) -> None:
    root = ElementTree.fromstring(charts.histogram(histogram, "y"))
    bars = root.findall("rect")
    counted = [count for count in (histogram.exact, *histogram.counts, histogram.infinite) if count]
    assert len(bars) == len(counted)
    for bar in bars:
        x, y, width, height = (float(bar.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= 640
        assert 0 <= y <= y + height <= 197
    (limit,) = [line for line in root.findall("line") if line.attrib["class"] == "limit"]
    beyond = {float(bar.attrib["x"]) > float(limit.attrib["x1"]) for bar in bars if is_bad(bar)}
    assert beyond <= {True}
    if histogram.unit != "standard deviation":
        plain = [bar for bar in bars if not is_bad(bar)]
        assert all(float(bar.attrib["x"]) < float(limit.attrib["x1"]) for bar in plain)


def is_bad(bar: ElementTree.Element) -> bool:
    return bar.attrib["class"] == "bad"


@pytest.mark.parametrize(
    "errors", [[], [0.0], [0.0, 0.0], [1e-9, 3.0], [float("nan"), float("inf"), 1e300, 1e-300]]
)
def test_curves_of_any_errors_stay_inside(errors: list[float]) -> None:
    points = [(str(index), error) for index, error in enumerate(errors)]
    if not points:
        assert "<svg" not in page(ValidationReport("m", (replace(ALONE, size=0),)))
        return
    for dot in ElementTree.fromstring(charts.curve(points, "y")).findall("circle"):
        assert 0 <= float(dot.attrib["cx"]) <= 640
        assert 29 <= float(dot.attrib["cy"]) <= 197


def test_scores_that_are_no_numbers_are_written() -> None:
    nan = float("nan")
    score = Score("auc", nan, 9, "keras source", 0.9, nan, nan)
    Reader(page(ValidationReport("m", (replace(FAILED, scores=(score,)),))))


# --- JUnit ---------------------------------------------------------------------------


def cases(report: ValidationReport) -> dict[str, ElementTree.Element]:
    suite = ElementTree.fromstring(junit(report)).find("testsuite")
    assert suite is not None
    return {case.attrib["name"]: case for case in suite}


def test_each_artifact_check_and_output_is_a_case() -> None:
    found = cases(REPORT)
    assert list(found)[:4] == [
        *("model.onnx", "model.onnx: signature", "model.onnx: checker"),
        "model.onnx: output logits",
    ]
    outcome = {name: case.find("*").tag for name, case in found.items() if len(case)}  # type: ignore[union-attr]
    for name, tag in (
        *(("model.onnx", "failure"), ("model.onnx: output logits", "failure")),
        *(("saved_model", "system-out"), ("saved_model: output logits", "system-out")),
        *(("model.tflite", "failure"), ("model.tflite: signature", "failure")),
        *(("quiet.onnx", "skipped"), ("quiet.onnx: output logits", "skipped")),
        ("bare.onnx", "skipped"),
    ):
        assert outcome[name] == tag, name
    assert "7 of 300 elements differ" in found["model.onnx"][0].attrib["message"]
    assert found["bare.onnx"][0].attrib == {"type": "unverified", "message": "no reference"}


def test_the_suite_counts_its_cases() -> None:
    root = ElementTree.fromstring(junit(REPORT))
    (suite,) = root
    assert (root.tag, suite.tag, suite.attrib["name"]) == ("testsuites", "testsuite", "digits")
    assert int(suite.attrib["tests"]) == len(suite)
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) == 4
    assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped")) == 3
    assert suite.attrib["errors"] == "0"


def test_a_quantized_output_fails_by_its_lost_signal() -> None:
    lost = replace(DIFF, mismatches=0, rms_rel=0.5)
    kept = replace(DIFF, name="kept", mismatches=9, rms_rel=0.1)
    parity = replace(FAILED.parity, noise_limit=None, rms_limit=0.3, outputs=(lost, kept))
    found = cases(ValidationReport("m", (replace(FAILED, parity=parity),)))
    assert found["model.onnx: output logits"].find("failure") is not None
    assert found["model.onnx: output kept"].find("failure") is None


def test_what_xml_cannot_hold_is_written_as_escapes() -> None:
    first = next(iter(cases(named("a\x00b\x1b[31m\ufffe<&\ud800"))))
    assert first == r"a\x00b\x1b[31m\xfffe<&\xd800"


# --- JSON ----------------------------------------------------------------------------

VALIDATOR = jsonschema.Draft202012Validator(json.loads(json_schema()))


def as_json(report: ValidationReport) -> object:
    return json.loads(msgspec.json.encode(document(report)))


def test_the_schema_in_the_package_is_the_one_of_the_code() -> None:
    text = resources.files("modelpack").joinpath("validation.schema.json").read_text("utf-8")
    assert text == json_schema()


def test_documents_fit_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    for report in (REPORT, named(HOSTILE), ValidationReport("none", ())):
        VALIDATOR.validate(as_json(report))


def test_numbers_that_json_lacks_are_null() -> None:
    diff = replace(DIFF, max_abs=float("inf"), max_rel=float("nan"))
    parity = replace(FAILED.parity, outputs=(diff,), tolerance=Tolerance(0.1, float("inf")))
    found = as_json(ValidationReport("m", (replace(FAILED, parity=parity),)))
    VALIDATOR.validate(found)
    assert found["artifacts"][0]["parity"]["outputs"][0]["max_abs"] is None  # type: ignore[index]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value.update(surprise=1),
        lambda value: value.pop("verdict"),
        lambda value: value.update(verdict="fine"),
        lambda value: value.update(schema=2),
        lambda value: value["artifacts"][0].pop("structure"),
        lambda value: value["artifacts"][0].update(size="12"),
        lambda value: value["artifacts"][0]["parity"].update(surprise=1),
        lambda value: value["artifacts"][0]["bench"].update(calls=1.5),
    ],
)
def test_other_documents_do_not_fit_the_schema(damage) -> None:
    value = as_json(REPORT)
    damage(value)
    assert not VALIDATOR.is_valid(value)


# --- words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (words.size(999), "999 B"),
        (words.size(1_400_000), "1.4 MB"),
        (words.counted(1, "case"), "1 case"),
        (words.counted(1200, "row"), "1,200 rows"),
        (words.milliseconds(0.01234), "0.0123 ms"),
        (words.milliseconds(12345.6), "12346 ms"),
        (words.difference(Score("f1", 0.5, 9)), "-"),
        (words.difference(Score("f1", 0.5, 9, "x", 0.5, 0.0, 0.0)), "0 (0 to 0)"),
        (words.difference(Score("f1", 0.4, 9, "x", 0.5, -0.2, 0.05)), "-0.1 (-0.2 to +0.05)"),
        (charts.power(0), "1"),
        (charts.power(-3), "1/8"),
        (charts.power(20), "2²⁰"),
    ],
)
def test_figures_are_written_for_people(text: str, wanted: str) -> None:
    assert text == wanted
