"""Text vectorizers in ONNX: what scikit-learn counts in a text, for any text."""
# ruff: noqa: RUF001 - letters that look alike are what is tested

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import joblib
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import datasets
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline

from modelpack import onnx_graph
from modelpack.adapters import sklearn as sklearn_adapter
from modelpack.adapters.sklearn_refusals import caveats
from modelpack.adapters.sklearn_texts import probes
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError, UnsupportedOpsError
from modelpack.steps import StepOptions
from tests.thinned import thinned

HARD = (
    *("", " ", "\t", "\n\n", "...!?", "a", "\uffff", "\x00", "iris\x00setosa", "a\uffffb\ufffe c"),
    *("Crème brûlée à l'été", "cre\u0300me bru\u0302le\u0301e", "ÀÉÎÕÜ ÿ Ÿ", "e\u0301" * 40),
    *("Straße STRASSE ẞ", "İstanbul ısı IĞDIR", "İ", "K\u212aelvin Å\u212b", "ŉ ΐ ǆ ǅ Ǆ"),
    *("ΟΔΟΣ ΣΑΣ Σ", "ΑΣ.Σ ΑΣ'Σ ΣΑ", "Α\u0301Σ\u0301 ΑΣ\u0301Α", "ς σ Σς", "\u00adΣ a\u00adΣ"),
    *("東京都は日本の首都です", "한국어 텍스트 가각", "हिन्दी में", "مرحبا ١٢٣", "ไทย"),
    *(
        "😀👍🏽 ok",
        "\U00010400\U00010428",
        "\U000f0041bc",
        "\ufb01nd ½ ² ㎏ Ⅷ ª",
        "a\u200db\u200cc",
    ),
    *("a1_b2 __x__ 3.4 1,000", "don't e-mail re-use", "the the of the of", "a b c d e"),
    *("nel\x85nbsp\u00a0em\u2003sep\u2028par\u2029fs\x1cend", "line\r\n\tbreak  two   three"),
    *(" the iris of the data ", "Data DATA dAtA data-set data_set", "été iris " * 90, "x" * 3000),
)


def lines() -> list[str]:
    """Sentences of the descriptions of data sets."""
    names = ("iris", "wine", "breast_cancer")
    texts = [getattr(datasets, f"load_{name}")().DESCR for name in names]
    return [line for text in texts for line in text.splitlines() if len(line.split()) > 3]


SEEN = [*lines(), *(text for text in HARD for _ in range(3))]
ASKED = [*lines()[:20], *HARD]


def made(model: Any, opset: int | None = None) -> onnx.ModelProto:
    """The estimator as ONNX."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(sklearn_adapter, "load", lambda _: model),
    ):
        source = ModelRef("sklearn", Encoding.PICKLE, f"{folder}/m.joblib", trusted=True)
        sklearn_adapter.to_onnx(source, f"{folder}/m.onnx", StepOptions(opset=opset))
        return onnx.load(f"{folder}/m.onnx")


def session(model: Any, opset: int | None = None) -> onnxruntime.InferenceSession:
    """The estimator as ONNX Runtime runs it."""
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    return onnxruntime.InferenceSession(
        made(model, opset).SerializeToString(), quiet, providers=["CPUExecutionProvider"]
    )


def answer(run: onnxruntime.InferenceSession, texts: list[str]) -> Any:
    """What ONNX Runtime answers for texts."""
    column = np.array(texts, object).reshape(-1, 1)
    return run.run(None, {run.get_inputs()[0].name: column})[-1]


def wanted(model: Any, texts: list[str]) -> Any:
    """What scikit-learn answers for them."""
    result = model.transform(texts)
    return result.toarray() if sparse.issparse(result) else result


COUNTS: dict[str, dict[str, Any]] = {
    "default": {},
    "cased": {"lowercase": False},
    "unicode accents": {"strip_accents": "unicode"},
    "ASCII accents": {"strip_accents": "ascii"},
    "cased accents": {"lowercase": False, "strip_accents": "unicode"},
    "stop words": {"stop_words": "english"},
    "stop words, n-grams": {"stop_words": ["the", "of", "été"], "ngram_range": (1, 3)},
    "long n-grams": {"ngram_range": (2, 3)},
    "characters": {"analyzer": "char", "ngram_range": (1, 3)},
    "characters of words": {"analyzer": "char_wb", "ngram_range": (1, 3)},
    "many characters of words": {"analyzer": "char_wb", "ngram_range": (4, 6)},
    "casefold": {"preprocessor": str.casefold},
    "split": {"tokenizer": str.split, "token_pattern": None},
    "words": {"token_pattern": r"\w+", "binary": True},
    "ASCII words": {"token_pattern": r"(?a)\b\w\w+\b"},
    "letters": {"token_pattern": r"\b[^\d\W]{2,}\b", "min_df": 2},
    "short words": {"token_pattern": r"\b\w{2,5}\b", "max_features": 50},
    "words or numbers": {"token_pattern": r"\b[a-z]+\b|\b\d+\b"},
    "any case": {"lowercase": False, "token_pattern": r"(?i)[a-zß]+(?:'[a-z]+)?"},
    "joined words": {"token_pattern": r"\b\w[\w'-]*\w\b|\b\w", "stop_words": ["the", "data-set"]},
    "begun words": {"token_pattern": r"\b[a-zé]+", "ngram_range": (1, 2)},
    "within words": {"token_pattern": r"\B\w[^\w ]*"},
    "marks": {"token_pattern": r"[\w']+|[.,!?;]", "ngram_range": (1, 2)},
    "tokens with blanks": {"token_pattern": r"[a-z]+ [a-z]+|\w+", "ngram_range": (1, 2)},
    "a group": {"token_pattern": r"\b(\w[a-z]+)\b"},
    "a vocabulary": {"vocabulary": ["été", "the data", "zzz", "\ud800", ""], "ngram_range": (1, 2)},
}


@pytest.mark.parametrize("name", thinned(COUNTS, 2))
def test_counts_are_those_of_scikit_learn(name: str) -> None:
    model = CountVectorizer(**COUNTS[name]).fit(SEEN)
    np.testing.assert_array_equal(answer(session(model), ASKED), wanted(model, ASKED))


HASHES: dict[str, dict[str, Any]] = {
    "default": {},
    "pairs, stop words": {"ngram_range": (1, 2), "stop_words": "english", "norm": "l1"},
    "characters of words": {"analyzer": "char_wb", "ngram_range": (2, 5), "norm": None},
    "characters": {"analyzer": "char", "ngram_range": (2, 3), "alternate_sign": False},
    "binary": {"binary": True, "norm": None, "n_features": 7},
    "accents": {"strip_accents": "unicode", "lowercase": False},
}


@pytest.mark.parametrize("name", thinned(HASHES, 2))
def test_hashes_are_those_of_scikit_learn(name: str) -> None:
    model = HashingVectorizer(**{"n_features": 64, **HASHES[name]})
    np.testing.assert_allclose(
        answer(session(model), ASKED), wanted(model, ASKED), rtol=1e-6, atol=1e-7
    )


WEIGHTS: dict[str, dict[str, Any]] = {
    "sublinear, l1": {"sublinear_tf": True, "norm": "l1"},
    "no norm": {"norm": None, "smooth_idf": False},
    "no weights": {"use_idf": False},
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_scikit_learn(name: str) -> None:
    together = TfidfVectorizer(stop_words="english", **WEIGHTS[name]).fit(SEEN)
    apart = make_pipeline(CountVectorizer(), TfidfTransformer(**WEIGHTS[name])).fit(SEEN)
    for model in (together, apart):
        np.testing.assert_allclose(
            answer(session(model), ASKED), wanted(model, ASKED), rtol=1e-6, atol=1e-7
        )


def test_no_texts_have_no_rows() -> None:
    model = TfidfVectorizer().fit(SEEN)
    assert answer(session(model), []).shape == (0, len(model.vocabulary_))


# --- any text ------------------------------------------------------------------------

# Letters that are often in the vocabulary, those with rules of their own, and all others.
COMMON = "abeéÉ e\u0301ΣσςΑİıßIſK\u212a -'_.\n\t\u00a0\u00ad\u200d19"
TEXTS = st.text(st.sampled_from(COMMON) | st.characters(exclude_categories=["Cs"]), max_size=30)
SETTINGS = {
    "words": CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", strip_accents="unicode"),
    "cased": CountVectorizer(lowercase=False, token_pattern=r"\b[^\d\W]+\b"),
    "joined": CountVectorizer(token_pattern=r"\b\w[\w'-]*\b|\B\W", strip_accents="ascii"),
    "characters": CountVectorizer(analyzer="char", ngram_range=(1, 2)),
    "parts of words": CountVectorizer(analyzer="char_wb", ngram_range=(1, 4)),
    "hashes": HashingVectorizer(n_features=128, norm=None, token_pattern=r"\b\w+\b"),
    "ASCII": HashingVectorizer(n_features=128, norm=None, analyzer="char", strip_accents="ascii"),
}
WORDS = [
    "ab ba é Éa",
    "σας Σ ΑΣ ας ασ",
    "i̇ ıß ss k",
    "e\u0301 a_b 19 '",
    "東 \U0001f600\ufb01",
    *COMMON,
]


@functools.cache
def converted(name: str) -> tuple[Any, onnxruntime.InferenceSession]:
    """A vectorizer, fitted on words of few letters, and its ONNX file."""
    model = SETTINGS[name].fit(WORDS)
    return model, session(model)


@pytest.mark.parametrize("name", SETTINGS)
@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(texts=st.lists(TEXTS, max_size=6))
def test_any_text_is_counted_alike(name: str, texts: list[str]) -> None:
    counted_alike(name, texts)


def counted_alike(name: str, texts: list[str]) -> None:
    """Fail unless ONNX Runtime counts in each text what scikit-learn does."""
    model, run = converted(name)
    found = answer(run, texts)
    for text, row in zip(texts, found, strict=True):
        np.testing.assert_array_equal(row, wanted(model, [text])[0], err_msg=json.dumps(text))


# --- within other models, and refusals -----------------------------------------------


def test_vectorizers_side_by_side_take_one_text(tmp_path: Path, modelpack: Any) -> None:
    both = FeatureUnion(
        [
            ("words", TfidfVectorizer(stop_words="english", ngram_range=(1, 2))),
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3))),
        ]
    )
    labels = np.arange(len(SEEN)) % 3
    model = make_pipeline(both, LogisticRegression()).fit(SEEN, labels)
    joblib.dump(model, tmp_path / "m.joblib")
    modelpack.ok("convert", "m.joblib", "--trust", "-o", "m.onnx")
    run = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert [item.name for item in run.get_inputs()] == ["text"]
    found = answer(run, ASKED)
    np.testing.assert_allclose(found, model.predict_proba(ASKED), rtol=1e-5, atol=1e-6)


def _words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"analyzer": _words}, "analyzer is code of its own"),
        ({"tokenizer": _words}, "tokenizer is code of its own"),
        ({"preprocessor": str.strip}, "preprocessor is code of its own"),
        ({"strip_accents": str.strip}, "strip_accents is code of its own"),
        ({"token_pattern": r"\w+(?=\s)"}, "comes before or after"),
        ({"token_pattern": r"#(\w+)"}, "group"),
        ({"token_pattern": "\\b[\U000f0041-]+"}, "private characters"),
        ({"token_pattern": r"\w+?"}, "longest"),
        ({"token_pattern": r"a|ab"}, "longest"),
        ({"token_pattern": r"\w*"}, "nothing"),
        ({"token_pattern": r"^\w+"}, "anchor"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedOpsError, match=reason) as caught:
        session(CountVectorizer(vocabulary=["a", "b"], **choices))
    assert "CountVectorizer" in str(caught.value)


def test_texts_in_files_are_refused() -> None:
    with pytest.raises(InputError, match="input='filename'"):
        session(CountVectorizer(vocabulary=["a", "b"], input="filename"))


def test_hashes_of_tokens_with_marks_are_refused() -> None:
    with pytest.raises(UnsupportedOpsError, match="not supported for hashes"):
        session(HashingVectorizer(token_pattern=r"\b[a-z]+"))


def test_an_opset_without_strings_is_refused() -> None:
    with pytest.raises(UnsupportedOpsError, match="opset 19"):
        session(CountVectorizer().fit(SEEN), opset=19)


PLANTED = ("é", "É", "İ", "\u0301", "a stop word", "ASCII tokens")


def _planted(model: onnx.ModelProto, bug: str) -> None:
    """Let a vectorizer forget a character, a stop word, or what letters there are."""
    for node in onnx_graph.nodes(model):
        own = {item.name: item for item in node.attribute}
        if bug == "ASCII tokens" and "tokenexp" in own:
            own["tokenexp"].s = b"[A-Za-z0-9_]{2,}"
        elif bug == "a stop word" and "values_int64s" in own:
            numbers = [max(number, 0) for number in own["values_int64s"].ints]
            own["values_int64s"].ints[:] = numbers
        elif "values_strings" in own and bug.encode() in own["keys_strings"].strings:
            place = list(own["keys_strings"].strings).index(bug.encode())
            for name in ("keys_strings", "values_strings"):
                del own[name].strings[place]


@pytest.mark.parametrize("bug", PLANTED)
def test_made_up_texts_show_planted_bugs(bug: str) -> None:
    texts = ["Très bon café", "Un thé à éviter", "Le meilleur été", "σας ας", "façade"]
    words = TfidfVectorizer(ngram_range=(1, 2), strip_accents="unicode", stop_words=["un", "une"])
    fitted = words.fit(texts)
    asked = list(probes(fitted))
    model = made(fitted)
    _planted(model, bug)
    wrong = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert abs(answer(wrong, asked) - wanted(fitted, asked)).max() > 1e-3


def test_many_dense_hashes_are_noted() -> None:
    (note,) = caveats(make_pipeline(HashingVectorizer()))
    assert "4.2 MB a row" in note
    assert caveats(HashingVectorizer(n_features=1024)) == ()
