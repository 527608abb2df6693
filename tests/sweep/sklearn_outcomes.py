"""How the estimators of scikit-learn end that are not simply right, and the page that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

METHODS = ("predict", "transform", "predict_proba", "decision_function", "score_samples")

_NOT_NEW = "answers nothing for new rows"
_NO_TENSOR = "its input is no table of numbers or text"
_EQUALLY_NEAR = "of rows at equal distance scikit-learn takes others"

# Estimators that are refused by name, with the reason. All others must be right in ONNX.
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            *("AgglomerativeClustering", "ClassicalMDS", "DBSCAN", "EmpiricalCovariance"),
            *("GraphicalLasso", "GraphicalLassoCV", "HDBSCAN", "LedoitWolf", "MDS", "MinCovDet"),
            *("NearestNeighbors", "OAS", "OPTICS", "ShrunkCovariance", "SpectralBiclustering"),
            *("SpectralClustering", "SpectralCoclustering", "SpectralEmbedding", "TSNE"),
        ),
        _NOT_NEW,
    ),
    **dict.fromkeys(
        ("DictVectorizer", "FeatureHasher", "MultiLabelBinarizer", "PatchExtractor"), _NO_TENSOR
    ),
    "KNNImputer": _EQUALLY_NEAR,
    "KNeighborsTransformer": _EQUALLY_NEAR,
}

# Combinations that are refused.
REFUSED_PIPELINES = {
    "NaN, neighbors, forest",
}

# Where answers for real rows differ from scikit-learn's by more than eight times the noise.
INEXACT = {
    "MiniBatchDictionaryLearning on breast_cancer": "9 times in one of 17100 numbers: "
    "scikit-learn solves the normal equations, which loses digits",
    **dict.fromkeys(
        (
            "RadiusNeighborsTransformer on breast_cancer",
            "RadiusNeighborsTransformer on breast_cancer, float32",
        ),
        "distances of a row from itself, which scikit-learn gives as up to 5e-5",
    ),
}

# Ops by target that have no form in it: a model with one must be refused, by its name.
WITHOUT_FORM: dict[str, set[str]] = {"savedmodel": set(), "tflite": {"Tokenizer"}}
_WITH_TOKENS = {"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"}

# What float32 is too narrow for. In TFLite that is what ONNX Runtime computes in float64: large
# sums lose digits, and values next to a threshold or a quantile, or equally near neighbours,
# change sides. In SavedModel it is a power of large numbers, float32 in ONNX Runtime too.
TOO_NARROW: dict[str, set[str]] = {
    "savedmodel": {
        "RadiusNeighborsTransformer on breast_cancer",
        "RadiusNeighborsTransformer on breast_cancer, float32",
        "power, PCA, logistic",
    },
    "tflite": {
        "ComplementNB on breast_cancer",
        "ComplementNB on breast_cancer, float32",
        "GaussianProcessClassifier on iris",
        "GaussianProcessClassifier on iris, float32",
        "GaussianProcessClassifier on iris, strings",
        "GaussianProcessClassifier on iris, strings, float32",
        "Isomap on iris, float32",
        "KernelPCA on iris, float32",
        "KernelPCA on breast_cancer",
        "KernelPCA on breast_cancer, float32",
        "KernelRidge on diabetes, raw",
        "KernelRidge on diabetes, raw, float32",
        "LocalOutlierFactor on iris",
        "LocallyLinearEmbedding on breast_cancer",
        "LocallyLinearEmbedding on breast_cancer, float32",
        "LocallyLinearEmbedding on iris",
        "LocallyLinearEmbedding on iris, float32",
        "MultinomialNB on breast_cancer",
        "MultinomialNB on breast_cancer, float32",
        "NMF on breast_cancer",
        "NMF on breast_cancer, float32",
        "Nystroem on iris",
        "Nystroem on iris, float32",
        "PowerTransformer on breast_cancer",
        "PowerTransformer on breast_cancer, float32",
        "PowerTransformer on iris",
        "PowerTransformer on iris, float32",
        "QuantileTransformer on iris",
        "RBFSampler on breast_cancer",
        "RBFSampler on breast_cancer, float32",
        "RadiusNeighborsTransformer on breast_cancer",
        "RadiusNeighborsTransformer on breast_cancer, float32",
        "RadiusNeighborsTransformer on iris",
        "RadiusNeighborsTransformer on iris, float32",
        "power, PCA, logistic",
        "scaled hist boosting",
        "robust hist boosting",
        "max-abs boosting",
    },
}

_HEAD = """# scikit-learn estimators

Made by `make docs` from the outcomes that two sweeps expect of every estimator of
`sklearn.utils.all_estimators()`; a test compares.

An estimator is fitted on two thirds of one or more data sets, in float64 and in float32, with the
settings that tests/sweep/test_sklearn_estimators.py gives it, and converted. *Yes* means that its
answers were right for made-up rows and for all real rows, with missing values where it takes them.
Otherwise it is refused by name, or the data sets are named for which float32 is too narrow (the
comparison of `modelpack convert` catches these where made-up rows show it), or for which
scikit-learn's own answer is less exact than the artifact's.

Settings other than these may be refused by name: [scikit-learn to ONNX](formats-and-routes.md).
The first row counts the estimators that answer for new rows and are right for all their data.
"""

FORMATS = ("onnx", "savedmodel", "tflite")
_COLUMNS = ("ONNX, float64", "ONNX, float32", "SavedModel, float64", "SavedModel, float32")
_TABLE = (
    f"| Estimator | Task | {' | '.join((*_COLUMNS, 'TFLite, float64', 'TFLite, float32'))} |",
    f"|{'---|' * 8}",
)
_FINE = {"yes", "-"}


def page(tasks: Mapping[str, str], methods: Mapping[str, bool], float32: str) -> str:
    """The page, in Markdown.

    Args:
        tasks: by case, what its estimator is asked for.
        methods: by estimator, whether it answers for new rows at all.
        float32: the end of the names of cases of float32.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    for case, task in tasks.items():
        name = case.partition(" on ")[0]
        if name not in REFUSED:
            rows.setdefault((name, task), []).append(case)
    table = {key: _cells(cases, float32) for key, cases in sorted(rows.items())}
    lines = [f"| {name} | {task} | {' | '.join(own)} |" for (name, task), own in table.items()]
    asked = [name for name, answers in methods.items() if answers]
    known = {name for name, _ in table}
    counts = [
        sum(
            name in known
            and all(own[place] in _FINE for (other, _), own in table.items() if other == name)
            for name in asked
        )
        for place in range(len(FORMATS) * 2)
    ]
    totals = f"| of {len(asked)} estimators | right in all | {' | '.join(map(str, counts))} |"
    refused = [f"- {name}: {reason}" for name, reason in sorted(REFUSED.items())]
    return "\n".join([_HEAD, *_TABLE, totals, *lines, "", "Refused:", "", *refused]) + "\n"


def _cells(cases: Sequence[str], float32: str) -> list[str]:
    """One cell of each format, for estimators trained on float64 and on float32."""
    parts = (
        [c for c in cases if not c.endswith(float32)],
        [c for c in cases if c.endswith(float32)],
    )
    return [_cell(part, form) for form in FORMATS for part in parts]


def _cell(cases: Sequence[str], form: str) -> str:
    if not cases:
        return "-"
    if form == "tflite" and cases[0].partition(" on ")[0] in _WITH_TOKENS:
        return "no: refused (Tokenizer)"
    excepted = {*TOO_NARROW.get(form, ()), *INEXACT}
    narrow = [case.partition(" on ")[2].split(", float32")[0] for case in cases if case in excepted]
    return f"not for {', '.join(narrow)}" if narrow else "yes"
