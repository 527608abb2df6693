"""How the estimators of scikit-learn end that are not simply right, and the page that says so."""

from __future__ import annotations

from collections.abc import Iterable

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
    "RadiusNeighborsTransformer on breast_cancer": "distances of a row from itself, which "
    "scikit-learn gives as up to 5e-5",
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
        "power, PCA, logistic",
    },
    "tflite": {
        "ComplementNB on breast_cancer",
        "GaussianProcessClassifier on iris",
        "GaussianProcessClassifier on iris, strings",
        "KernelPCA on breast_cancer",
        "KernelRidge on diabetes, raw",
        "LocalOutlierFactor on iris",
        "LocallyLinearEmbedding on breast_cancer",
        "LocallyLinearEmbedding on iris",
        "MultinomialNB on breast_cancer",
        "NMF on breast_cancer",
        "Nystroem on iris",
        "PowerTransformer on breast_cancer",
        "PowerTransformer on iris",
        "QuantileTransformer on iris",
        "RBFSampler on breast_cancer",
        "RadiusNeighborsTransformer on breast_cancer",
        "RadiusNeighborsTransformer on iris",
        "scaled hist boosting",
        "robust hist boosting",
        "max-abs boosting",
    },
}

_HEAD = """# scikit-learn estimators

Made by `make docs` from the outcomes that two sweeps expect of every estimator of
`sklearn.utils.all_estimators()`; a test compares.

An estimator is fitted on two thirds of one or more data sets, with the settings that
tests/sweep/test_sklearn_estimators.py gives it, and converted. *Yes* means that its answers were
right for made-up rows and for all real rows, with missing values where it takes them. Otherwise
it is refused by name, or the data sets are named for which float32 is too narrow (the comparison
of `modelpack convert` catches these where made-up rows show it), or for which scikit-learn's own
answer is less exact than the artifact's.

Settings other than these may be refused by name: [scikit-learn to ONNX](formats-and-routes.md).
"""


def page(cases: Iterable[str], methods: dict[str, bool]) -> str:
    """The page, in Markdown.

    Args:
        cases: names of all cases.
        methods: by estimator, whether it answers for new rows at all.
    """
    known = list(cases)
    names = sorted(name for name in methods if name not in REFUSED)
    forms = ("onnx", "savedmodel", "tflite")
    cells = {name: [_cell(name, known, form) for form in forms] for name in names}
    rows = [f"| {name} | {' | '.join(own)} |" for name, own in cells.items()]
    asked = [name for name, answers in methods.items() if answers]
    counts = [
        sum(name in cells and cells[name][place] == "yes" for name in asked)
        for place in range(len(forms))
    ]
    total = (
        f"Of {len(asked)} that answer for new rows, {counts[0]} reach ONNX, {counts[1]} SavedModel "
        f"and {counts[2]} TFLite with builtin ops, right for all their data sets."
    )
    table = ["| Estimator | ONNX | SavedModel | TFLite |", "|---|---|---|---|", *rows]
    refused = [f"- {name}: {reason}" for name, reason in sorted(REFUSED.items())]
    return "\n".join([_HEAD, total, "", *table, "", "Refused:", "", *refused]) + "\n"


def _cell(name: str, cases: list[str], target: str) -> str:
    if target == "tflite" and name in _WITH_TOKENS:
        return "no: refused (Tokenizer)"
    narrow = [
        case.partition(" on ")[2]
        for case in cases
        if case.partition(" on ")[0] == name and case in {*TOO_NARROW.get(target, ()), *INEXACT}
    ]
    return f"not for {', '.join(narrow)}" if narrow else "yes"
