"""Random estimators of scikit-learn: all families, with random settings."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import (
    AffinityPropagation,
    Birch,
    BisectingKMeans,
    KMeans,
    MeanShift,
    MiniBatchKMeans,
)
from sklearn.compose import TransformedTargetRegressor
from sklearn.covariance import EllipticEnvelope
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import RFE
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lars,
    Lasso,
    LassoLars,
    LinearRegression,
    LogisticRegression,
    OrthogonalMatchingPursuit,
    Perceptron,
    PoissonRegressor,
    QuantileRegressor,
    RANSACRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDOneClassSVM,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    NearestCentroid,
    RadiusNeighborsRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

_B = st.booleans()
_SEEDED = {"random_state": st.just(0)}
_TREES = st.integers(1, 12)
_DEPTHS = st.sampled_from((None, 2, 5))
_LEAVES = st.sampled_from((1, 1, 4))
_C = st.sampled_from((0.05, 1.0, 20.0))
_KERNELS = st.sampled_from(("rbf", "linear", "poly", "sigmoid"))
_GAMMAS = st.sampled_from(("scale", 0.1))
# Without a limit, LIBSVM takes minutes for columns of very different sizes.
_STEPS = st.just(5000)
_COUNTS = st.integers(1, 6)
_WEIGHTS = st.sampled_from(("uniform", "distance"))
_BALANCED = st.sampled_from((None, "balanced"))
_ACTIVATIONS = st.sampled_from(("relu", "tanh", "logistic", "identity"))
_LAYERS = st.sampled_from(((4,), (8, 3)))

Strategy = st.SearchStrategy[Any]


def _forest(kind: type, **more: Strategy) -> Strategy:
    return st.builds(
        kind, n_estimators=_TREES, max_depth=_DEPTHS, min_samples_leaf=_LEAVES, **_SEEDED, **more
    )


def _tree(kind: type, **more: Strategy) -> Strategy:
    return st.builds(kind, max_depth=_DEPTHS, min_samples_leaf=_LEAVES, **_SEEDED, **more)


def _boosting(kind: type, **more: Strategy) -> Strategy:
    return st.builds(
        kind,
        n_estimators=_TREES,
        max_depth=st.integers(1, 4),
        learning_rate=st.sampled_from((0.1, 0.5)),
        subsample=st.sampled_from((1.0, 0.7)),
        init=st.sampled_from((None, None, "zero")),
        **_SEEDED,
        **more,
    )


def _histograms(kind: type, **more: Strategy) -> Strategy:
    return st.builds(
        kind,
        max_iter=_TREES,
        max_leaf_nodes=st.sampled_from((3, 31)),
        min_samples_leaf=st.sampled_from((2, 20)),
        max_bins=st.sampled_from((16, 255)),
        **_SEEDED,
        **more,
    )


# Those that take NaN.
_criteria = st.sampled_from(("gini", "entropy"))
_losses = st.sampled_from(("squared_error", "absolute_error", "quantile"))
missing_classifiers = [
    _tree(DecisionTreeClassifier, criterion=_criteria, class_weight=_BALANCED),
    _forest(RandomForestClassifier, criterion=_criteria, class_weight=_BALANCED),
    _forest(ExtraTreesClassifier, max_features=st.sampled_from((1, None))),
    _histograms(HistGradientBoostingClassifier, class_weight=_BALANCED),
    st.builds(DummyClassifier, strategy=st.sampled_from(("prior", "most_frequent"))),
]
missing_regressors = [
    _tree(DecisionTreeRegressor),
    _forest(RandomForestRegressor),
    _forest(ExtraTreesRegressor),
    st.builds(
        lambda loss, **given: HistGradientBoostingRegressor(loss=loss, quantile=0.7, **given),
        _losses,
        max_iter=_TREES,
        min_samples_leaf=st.sampled_from((2, 20)),
        random_state=st.just(0),
    ),
]

_linear_classifiers = [
    st.builds(LogisticRegression, C=_C, class_weight=_BALANCED, fit_intercept=_B),
    st.builds(RidgeClassifier, alpha=_C, fit_intercept=_B),
    st.builds(
        SGDClassifier,
        loss=st.sampled_from(("hinge", "log_loss", "modified_huber", "squared_hinge")),
        **_SEEDED,
    ),
    st.builds(Perceptron, **_SEEDED),
    st.builds(LinearSVC, C=_C, fit_intercept=_B, **_SEEDED),
    st.builds(
        LinearDiscriminantAnalysis,
        solver=st.sampled_from(("svd", "lsqr")),
    ),
]
_plain_classifiers = [
    *_linear_classifiers,
    st.builds(
        SVC,
        C=_C,
        kernel=_KERNELS,
        gamma=_GAMMAS,
        max_iter=_STEPS,
        decision_function_shape=st.sampled_from(("ovr", "ovo")),
        class_weight=_BALANCED,
    ),
    st.builds(NuSVC, nu=st.just(0.1), kernel=_KERNELS, gamma=_GAMMAS, max_iter=_STEPS),
    st.builds(KNeighborsClassifier, _COUNTS, weights=_WEIGHTS, p=st.sampled_from((1, 2))),
    st.builds(NearestCentroid, metric=st.sampled_from(("euclidean", "manhattan"))),
    st.builds(GaussianNB),
    st.builds(BernoulliNB, alpha=_C, binarize=st.sampled_from((0.0, 0.5)), fit_prior=_B),
    st.builds(QuadraticDiscriminantAnalysis, reg_param=st.sampled_from((0.1, 0.5))),
    _tree(ExtraTreeClassifier),
    _boosting(GradientBoostingClassifier),
    st.builds(
        AdaBoostClassifier,
        st.sampled_from((None, DecisionTreeClassifier(max_depth=2, random_state=0))),
        n_estimators=_TREES,
        **_SEEDED,
    ),
    st.builds(
        MLPClassifier,
        _LAYERS,
        activation=_ACTIVATIONS,
        max_iter=st.just(60),
        **_SEEDED,
    ),
    st.builds(
        GaussianProcessClassifier,
        st.sampled_from((None, ConstantKernel() * RBF(2.0))),
        **_SEEDED,
    ),
    st.builds(LabelSpreading, gamma=st.sampled_from((0.5, 5.0))),
    st.builds(LabelPropagation, gamma=st.sampled_from((0.5, 5.0))),
]
_positive_classifiers = [
    st.builds(MultinomialNB, alpha=_C, fit_prior=_B),
    st.builds(ComplementNB, alpha=_C, norm=_B),
]

_gp_kernels = st.sampled_from(
    (
        None,
        ConstantKernel(2.0) * RBF(1.5) + WhiteKernel(0.1),
        Matern(nu=1.5) + WhiteKernel(0.1),
        DotProduct() + WhiteKernel(0.1),
    )
)
_plain_regressors = [
    st.builds(LinearRegression, fit_intercept=_B),
    st.builds(Ridge, alpha=_C, fit_intercept=_B),
    st.builds(Lasso, alpha=st.sampled_from((0.01, 0.5))),
    st.builds(ElasticNet, alpha=st.sampled_from((0.01, 0.5))),
    st.builds(BayesianRidge),
    st.builds(ARDRegression),
    st.builds(HuberRegressor, max_iter=st.just(300)),
    st.builds(Lars),
    st.builds(LassoLars, alpha=st.just(0.01)),
    st.builds(OrthogonalMatchingPursuit),
    st.builds(QuantileRegressor, quantile=st.sampled_from((0.5, 0.8)), alpha=st.just(0.01)),
    st.builds(RANSACRegressor, **_SEEDED),
    st.builds(SGDRegressor, loss=st.sampled_from(("squared_error", "huber")), **_SEEDED),
    st.builds(LinearSVR, C=_C, **_SEEDED),
    st.builds(SVR, C=_C, kernel=_KERNELS, gamma=_GAMMAS, max_iter=_STEPS),
    st.builds(NuSVR, C=_C, kernel=_KERNELS, gamma=_GAMMAS, max_iter=_STEPS),
    st.builds(KNeighborsRegressor, _COUNTS, weights=_WEIGHTS, p=st.sampled_from((1, 2))),
    st.builds(RadiusNeighborsRegressor, radius=st.just(1e6)),
    _tree(ExtraTreeRegressor),
    _boosting(GradientBoostingRegressor, loss=st.sampled_from(("squared_error", "huber"))),
    st.builds(
        AdaBoostRegressor,
        n_estimators=_TREES,
        loss=st.sampled_from(("linear", "square", "exponential")),
        **_SEEDED,
    ),
    st.builds(
        MLPRegressor,
        hidden_layer_sizes=_LAYERS,
        activation=_ACTIVATIONS,
        max_iter=st.just(60),
        **_SEEDED,
    ),
    st.builds(
        GaussianProcessRegressor,
        _gp_kernels,
        alpha=st.just(1e-3),
        normalize_y=_B,
        **_SEEDED,
    ),
    st.builds(
        KernelRidge,
        alpha=_C,
        kernel=st.sampled_from(("linear", "rbf", "polynomial", "laplacian")),
    ),
    st.builds(PLSRegression, st.just(1), scale=_B),
    st.builds(DummyRegressor, strategy=st.sampled_from(("mean", "median"))),
]
_positive_targets = [
    st.builds(PoissonRegressor, alpha=_C),
    st.builds(GammaRegressor, alpha=_C),
    st.builds(TweedieRegressor, power=st.sampled_from((0.0, 1.5)), link=st.just("log")),
    _histograms(HistGradientBoostingRegressor, loss=st.sampled_from(("poisson", "gamma"))),
]

clusterers = st.one_of(
    st.builds(KMeans, st.integers(2, 6), n_init=st.just(2), **_SEEDED),
    st.builds(MiniBatchKMeans, st.integers(2, 6), n_init=st.just(2), **_SEEDED),
    st.builds(BisectingKMeans, st.integers(2, 6), **_SEEDED),
    st.builds(Birch, n_clusters=st.sampled_from((2, 3, None))),
    st.builds(MeanShift, bin_seeding=_B),
    st.builds(AffinityPropagation, **_SEEDED),
    *(
        st.builds(
            kind,
            n_components=st.integers(1, 4),
            covariance_type=st.sampled_from(("full", "tied", "diag", "spherical")),
            reg_covar=st.just(1e-2),
            **_SEEDED,
        )
        for kind in (GaussianMixture, BayesianGaussianMixture)
    ),
)
detectors = st.one_of(
    st.builds(
        IsolationForest, n_estimators=_TREES, max_samples=st.sampled_from((10, 1.0)), **_SEEDED
    ),
    st.builds(LocalOutlierFactor, st.integers(2, 10), novelty=st.just(True)),
    st.builds(
        OneClassSVM, kernel=_KERNELS, gamma=_GAMMAS, max_iter=_STEPS, nu=st.sampled_from((0.1, 0.5))
    ),
    st.builds(EllipticEnvelope, contamination=st.just(0.1), **_SEEDED),
    st.builds(SGDOneClassSVM, nu=st.sampled_from((0.1, 0.5)), **_SEEDED),
)


def classifiers(several: bool, positive: bool) -> Strategy:
    """A classifier of two classes or of several, of rows without NaN."""
    plain = [*_plain_classifiers, *missing_classifiers]
    plain += _positive_classifiers if positive else []
    alone = st.one_of(*plain)
    inner = st.one_of(*plain)
    return st.one_of(alone, alone, _composed_classifiers(inner, several))


def regressors(positive: bool) -> Strategy:
    """A regressor of rows without NaN; ``positive`` says that targets are."""
    plain = [*_plain_regressors, *missing_regressors, *(_positive_targets if positive else [])]
    alone = st.one_of(*plain)
    return st.one_of(alone, alone, _composed_regressors(alone))


def _named(models: list[BaseEstimator]) -> list[tuple[str, BaseEstimator]]:
    return [(f"m{index}", model) for index, model in enumerate(models)]


def _scaled(model: BaseEstimator) -> BaseEstimator:
    return make_pipeline(StandardScaler(), model)


def _composed_classifiers(inner: Strategy, several: bool) -> Strategy:
    members = st.lists(inner, min_size=2, max_size=3).map(_named)
    probable = st.one_of(
        st.builds(LogisticRegression, C=_C),
        st.builds(GaussianNB),
        _forest(RandomForestClassifier),
        _tree(DecisionTreeClassifier),
        st.builds(LogisticRegression, C=_C).map(_scaled),
        st.builds(MLPClassifier, _LAYERS, max_iter=st.just(40), **_SEEDED),
    )
    deciding = st.one_of(*_linear_classifiers, st.builds(SVC, C=_C, max_iter=_STEPS).map(_scaled))
    made = [
        st.builds(VotingClassifier, members, voting=st.just("hard")),
        st.builds(
            VotingClassifier,
            st.lists(probable, min_size=2, max_size=2).map(_named),
            voting=st.just("soft"),
            weights=st.sampled_from((None, [2, 1])),
        ),
        st.builds(
            StackingClassifier,
            members,
            st.builds(LogisticRegression, C=_C),
            cv=st.just(2),
            passthrough=_B,
        ),
        st.builds(
            CalibratedClassifierCV,
            st.one_of(probable, deciding),
            method=st.sampled_from(("sigmoid", "isotonic", "temperature")),
            cv=st.just(2),
            ensemble=_B,
        ),
        st.builds(OneVsRestClassifier, st.one_of(probable, deciding)),
        st.builds(OneVsOneClassifier, st.one_of(probable, deciding)),
        st.builds(OutputCodeClassifier, deciding, code_size=st.just(2), **_SEEDED),
        st.builds(BaggingClassifier, inner, n_estimators=st.just(3), **_SEEDED),
        st.builds(
            GridSearchCV, st.builds(LogisticRegression), st.just({"C": [0.1, 1]}), cv=st.just(2)
        ),
        st.builds(
            RandomizedSearchCV,
            st.builds(RandomForestClassifier, st.just(4), **_SEEDED),
            st.just({"max_depth": [1, 3, 6]}),
            n_iter=st.just(2),
            cv=st.just(2),
            **_SEEDED,
        ),
        st.builds(SelfTrainingClassifier, probable),
        st.builds(RFE, st.builds(LogisticRegression), step=st.just(0.5)),
    ]
    if not several:
        made += [
            st.builds(
                FixedThresholdClassifier,
                st.one_of(probable, deciding),
                threshold=st.sampled_from(("auto", 0.3, 0.7)),
            ),
            st.builds(TunedThresholdClassifierCV, probable, cv=st.just(2), **_SEEDED),
        ]
    return st.one_of(*made)


def _composed_regressors(inner: Strategy) -> Strategy:
    members = st.lists(inner, min_size=2, max_size=3).map(_named)
    return st.one_of(
        st.builds(VotingRegressor, members, weights=st.none()),
        st.builds(StackingRegressor, members, st.builds(Ridge), cv=st.just(2), passthrough=_B),
        st.builds(BaggingRegressor, inner, n_estimators=st.just(3), **_SEEDED),
        st.builds(GridSearchCV, st.builds(Ridge), st.just({"alpha": [0.1, 1]}), cv=st.just(2)),
        st.builds(
            TransformedTargetRegressor,
            inner,
            transformer=st.sampled_from((None, StandardScaler(), MinMaxScaler())),
        ),
        st.builds(RFE, st.builds(Ridge), step=st.just(0.5)),
        inner.map(_scaled),
    )
