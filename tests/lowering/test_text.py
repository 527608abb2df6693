"""Ops on strings and n-grams, compared with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from modelpack.errors import UnsupportedOpsError
from tests.lowering.nodes import check, node_model


def _texts(*rows: Any) -> Any:
    return np.array(rows, dtype=object)


WORDS = _texts("Mon", "tue", "WED", "Äpfel", "")


@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("sensitive", [0, 1])
def test_normalizer(action: str, sensitive: int) -> None:
    model = node_model(
        "StringNormalizer",
        [WORDS],
        case_change_action=action,
        is_case_sensitive=sensitive,
        stopwords=["mon", "WED"],
        locale="C.UTF-8",
    )
    builtin = action == "NONE" and sensitive
    targets = ("savedmodel", "tflite") if builtin else ("savedmodel",)
    check(model, [WORDS], [_texts("mon", "WED")], [WORDS[:1]], targets=targets, rtol=0, atol=0)


@pytest.mark.parametrize("delimiter", [None, ",", ", "])
@pytest.mark.parametrize("maxsplit", [None, 1, 2])
def test_split(delimiter: str | None, maxsplit: int | None) -> None:
    given = {"delimiter": delimiter, "maxsplit": maxsplit}
    attributes = {name: value for name, value in given.items() if value is not None}
    x = _texts(["a, b,,c", "  d e  f g "], ["", "hello world"])
    model = node_model("StringSplit", [x], outputs=2, **attributes)
    check(model, [x], [x[:1]], targets=("savedmodel",), rtol=0, atol=0)


def test_regex() -> None:
    x = _texts(["a1", "1a"], ["", "a12"])
    model = node_model("RegexFullMatch", [x], pattern=r"[a-z]\d+")
    check(model, [x], targets=("savedmodel",), rtol=0, atol=0)


def test_concat_broadcasts() -> None:
    x, y = _texts(["a", "b"], ["c", "ü"]), _texts("x", "")
    model = node_model("StringConcat", [x, y])
    check(model, [x, y], [x[:1], y], targets=("savedmodel",), rtol=0, atol=0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"separators": [" ", "[.]", ","]},
        {"separators": [""]},
        {"tokenexp": "[a-zA-Z0-9_]+"},
        {"tokenexp": r"\b[a-z.]+", "mincharnum": 2},
        {"tokenexp": ".", "mark": 1},
    ],
)
@pytest.mark.parametrize("rank", [1, 2])
def test_tokenizer(attributes: dict[str, Any], rank: int) -> None:
    x = _texts("one two,three. ", "ähm a.b  cc", "", "\n4.\uffffbb\ufffe c")
    x = x if rank == 1 else x.reshape(2, 2)
    settings = {"mark": 0, "mincharnum": 1, "pad_value": "#", **attributes}
    model = node_model("Tokenizer", [x], domain="com.microsoft", opset=1, **settings)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    check(model, [x], [x[:1]], targets=("savedmodel",), rtol=0, atol=0)


@pytest.mark.parametrize("pattern", ["a|ab", "a+?", "a*(ab)*"])
def test_tokens_whose_longest_match_is_not_the_first(pattern: str) -> None:
    x = _texts("aab")
    model = node_model(
        "Tokenizer",
        [x],
        domain="com.microsoft",
        opset=1,
        mark=0,
        mincharnum=1,
        pad_value="#",
        tokenexp=pattern,
    )
    with pytest.raises(UnsupportedOpsError):
        check(model, targets=("savedmodel",), rtol=0, atol=0)


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("seed", [0, 7])
def test_hashes(positive: int, seed: int) -> None:
    x = _texts("", "a", "ab", "abc", "abcd", "ähm 東京", "\U0001f600" * 9, "x" * 101).reshape(2, 4)
    model = node_model(
        "MurmurHash3", [x], domain="com.microsoft", opset=1, positive=positive, seed=seed
    )
    kind = TensorProto.UINT32 if positive else TensorProto.INT32
    model.graph.output[0].type.tensor_type.elem_type = kind
    check(model, [x], [x[:1, :1]], [x[:, :0]], targets=("savedmodel",), rtol=0, atol=0)


POOL = {
    "ngram_counts": [0, 3, 9],
    "ngram_indexes": [4, 0, 2, 1, 3, 6, 5],
    "weights": [0.5, 1.5, 2.0, 3.0, 0.25, 4.0, 5.0],
}
GRAMS = "a b c a b b a c c a b c"


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize(("shortest", "longest", "skips"), [(1, 1, 0), (1, 3, 0), (2, 3, 2)])
@pytest.mark.parametrize("kind", ["strings", "int64s"])
def test_n_grams(mode: str, shortest: int, longest: int, skips: int, kind: str) -> None:
    rows = [list("abcab"), list("xbbac"), list("ccccc")]
    pool: list[Any] = GRAMS.split()
    if kind == "int64s":
        pool = [ord(letter) for letter in pool]
        x = np.array([[ord(letter) for letter in row] for row in rows], np.int64)
    else:
        x = _texts(*rows)
    model = node_model(
        "TfIdfVectorizer",
        [x],
        mode=mode,
        min_gram_length=shortest,
        max_gram_length=longest,
        max_skip_count=skips,
        **{f"pool_{kind}": pool},
        **POOL,
    )
    check(model, [x], [x[:1, :4]], [x[:2, :1]], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("target", "attributes"),
    [
        ("tflite", {"case_change_action": "LOWER"}),
        ("tflite", {"stopwords": ["a"]}),
        ("savedmodel", {"case_change_action": "UPPER", "locale": "tr_TR"}),
        ("savedmodel", {"case_change_action": "SWAP"}),
    ],
)
def test_refused(target: str, attributes: dict[str, Any]) -> None:
    model = node_model("StringNormalizer", [WORDS], **attributes)
    with pytest.raises(UnsupportedOpsError):
        check(model, targets=(target,), rtol=0, atol=0)
