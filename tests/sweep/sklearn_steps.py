"""Random preprocessing for scikit-learn: steps with random settings, alone and combined."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from sklearn.cluster import FeatureAgglomeration
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import (
    NMF,
    PCA,
    FactorAnalysis,
    FastICA,
    IncrementalPCA,
    KernelPCA,
    TruncatedSVD,
)
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomTreesEmbedding
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import (
    SelectFromModel,
    SelectKBest,
    SelectPercentile,
    VarianceThreshold,
    f_classif,
    f_regression,
)
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

_B = st.booleans()

scalers = st.one_of(
    st.builds(StandardScaler, with_mean=_B, with_std=_B),
    st.builds(
        MinMaxScaler, feature_range=st.sampled_from(((0, 1), (-2.0, 0.5), (0.1, 0.9))), clip=_B
    ),
    st.builds(MaxAbsScaler, clip=_B),
    st.builds(
        RobustScaler,
        with_centering=_B,
        with_scaling=_B,
        unit_variance=_B,
        quantile_range=st.sampled_from(((25.0, 75.0), (10.0, 90.0))),
    ),
    st.builds(Normalizer, norm=st.sampled_from(("l1", "l2", "max"))),
)

imputers = st.one_of(
    st.builds(
        SimpleImputer,
        strategy=st.sampled_from(("mean", "median", "most_frequent", "constant")),
        keep_empty_features=_B,
    ),
    st.builds(
        IterativeImputer,
        max_iter=st.just(3),
        initial_strategy=st.sampled_from(("mean", "median")),
        imputation_order=st.sampled_from(("ascending", "roman")),
        random_state=st.just(0),
    ),
)


def _bins(encode: str, strategy: str, bins: int) -> KBinsDiscretizer:
    given = {"quantile_method": "averaged_inverted_cdf"} if strategy == "quantile" else {}
    return KBinsDiscretizer(bins, encode=encode, strategy=strategy, random_state=0, **given)


def growing(positive: bool) -> st.SearchStrategy[Any]:
    """Steps that take any number of columns, and give as many or more."""
    functions = (np.abs, np.tanh, np.expm1, np.square, np.cbrt, np.sign, None)
    always = [
        st.builds(
            PolynomialFeatures,
            degree=st.sampled_from((2, 2, 3)),
            interaction_only=_B,
            include_bias=_B,
        ),
        st.builds(
            _bins,
            st.sampled_from(("onehot", "onehot-dense", "ordinal")),
            st.sampled_from(("uniform", "quantile", "kmeans")),
            st.integers(2, 6),
        ),
        st.builds(
            SplineTransformer,
            n_knots=st.integers(3, 6),
            degree=st.integers(1, 3),
            knots=st.sampled_from(("uniform", "quantile")),
            extrapolation=st.sampled_from(("constant", "linear", "continue", "periodic")),
            include_bias=_B,
        ),
        st.builds(
            QuantileTransformer,
            n_quantiles=st.sampled_from((10, 20)),
            output_distribution=st.sampled_from(("uniform", "normal")),
            random_state=st.just(0),
        ),
        st.builds(PowerTransformer, standardize=_B),
        st.builds(FunctionTransformer, st.sampled_from(functions)),
        st.builds(Binarizer, threshold=st.sampled_from((0.0, 0.5, 1.0))),
        st.builds(
            RandomTreesEmbedding,
            n_estimators=st.just(5),
            max_depth=st.integers(1, 3),
            random_state=st.just(0),
        ),
        st.builds(
            RBFSampler,
            gamma=st.sampled_from((0.1, 1.0)),
            n_components=st.integers(2, 8),
            random_state=st.just(0),
        ),
        st.builds(
            Nystroem,
            kernel=st.sampled_from(("rbf", "polynomial", "sigmoid", "laplacian")),
            gamma=st.sampled_from((0.1, 0.5)),
            n_components=st.integers(2, 8),
            random_state=st.just(0),
        ),
    ]
    signless = [
        st.builds(FunctionTransformer, st.sampled_from((np.log1p, np.sqrt))),
        st.builds(PowerTransformer, method=st.just("yeo-johnson"), standardize=_B),
    ]
    return st.one_of(*always, *(signless if positive else ()))


def narrowing(width: int, regression: bool, positive: bool) -> st.SearchStrategy[Any]:
    """Steps that give fewer columns than they take, which are at least two."""
    few, seeded = st.integers(1, min(4, width - 1)), st.just(0)
    score = st.just(f_regression if regression else f_classif)
    trees = ExtraTreesRegressor if regression else ExtraTreesClassifier
    made = [
        st.builds(
            PCA,
            few,
            whiten=_B,
            svd_solver=st.sampled_from(("full", "randomized")),
            random_state=seeded,
        ),
        st.builds(TruncatedSVD, few, random_state=seeded),
        st.builds(IncrementalPCA, few, whiten=_B),
        st.builds(
            KernelPCA,
            few,
            kernel=st.sampled_from(("linear", "rbf", "poly", "cosine")),
            random_state=seeded,
        ),
        st.builds(FastICA, few, random_state=seeded, max_iter=st.just(50)),
        st.builds(FactorAnalysis, few, random_state=seeded),
        st.builds(SelectKBest, score, k=few),
        st.builds(SelectPercentile, score, percentile=st.sampled_from((40, 70))),
        st.builds(VarianceThreshold, st.sampled_from((0.0, 1e-4))),
        st.builds(SelectFromModel, st.builds(trees, st.just(5), random_state=seeded)),
        st.builds(GaussianRandomProjection, few, random_state=seeded),
        st.builds(SparseRandomProjection, few, random_state=seeded),
        st.builds(FeatureAgglomeration, few),
    ]
    if positive:
        made.append(st.builds(NMF, few, random_state=seeded, max_iter=st.just(100)))
    return st.one_of(*made)


@st.composite
def numeric(draw: st.DrawFn, width: int, regression: bool, positive: bool) -> list[Any]:
    """Up to three steps for an array of numbers, of so many columns, without NaN."""
    found: list[Any] = []
    for _ in range(draw(st.sampled_from((0, 1, 1, 2)))):
        kinds = ["scaler", "scaler", "growing", "union"]
        kinds += ["narrowing", "columns"] if width > 1 and not found else []
        kind = draw(st.sampled_from(kinds))
        if kind == "scaler":
            found.append(draw(scalers))
        elif kind == "growing":
            found.append(draw(growing(positive and not found)))
        elif kind == "narrowing":
            found.append(draw(narrowing(width, regression, positive)))
        elif kind == "union":
            parts = [draw(st.one_of(scalers, growing(positive and not found))) for _ in range(2)]
            found.append(FeatureUnion([("a", parts[0]), ("b", parts[1])]))
        else:
            found.append(draw(by_position(width, positive)))
    return found


@st.composite
def by_position(draw: st.DrawFn, width: int, positive: bool) -> ColumnTransformer:
    """Two steps for parts of the columns, which are at least two; the rest stays or goes."""
    order = draw(st.permutations(range(width)))
    first = draw(st.integers(1, width - 1))
    second = draw(st.integers(first + 1, width))
    parts = [draw(st.one_of(scalers, growing(positive))) for _ in range(2)]
    places = [sorted(order[:first]), sorted(order[first:second])]
    rest = draw(st.sampled_from(("drop", "passthrough")))
    return ColumnTransformer(
        [("a", parts[0], places[0]), ("b", parts[1], places[1])],
        remainder=rest,
        sparse_threshold=0,
    )


@st.composite
def of_frame(
    draw: st.DrawFn, numbers: int, words: int, missing: bool, positive: bool
) -> ColumnTransformer:
    """A step for the columns of numbers, and encoders of those of text."""
    first = draw(st.one_of(scalers, growing(positive), st.just("passthrough")))
    if missing:
        given = draw(imputers)
        first = given if first == "passthrough" else make_pipeline(given, first)
    encoder = draw(
        st.one_of(
            st.builds(OneHotEncoder, handle_unknown=st.just("ignore"), sparse_output=_B),
            st.just(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
        )
    )
    return ColumnTransformer(
        [
            ("numbers", first, [f"n {index}" for index in range(numbers)]),
            ("words", encoder, [f"w{index}" for index in range(words)]),
        ],
        sparse_threshold=draw(st.sampled_from((0, 0.3))),
    )
