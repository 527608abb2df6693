"""The converters by estimator, registered as skl2onnx registers its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from skl2onnx import update_registered_converter
from skl2onnx._parse import _parse_sklearn_classifier, update_registered_parser
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common._registration import (
    RegisteredConverter,
    _converter_pool,
    _shape_calculator_pool,
)
from skl2onnx.common.data_types import (
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
    guess_tensor_type,
)
from sklearn.base import ClassifierMixin, is_classifier, is_outlier_detector
from sklearn.feature_selection import RFE

from modelpack.adapters.sklearn_columns import OF_TEXT
from modelpack.adapters.sklearn_converters import (
    approximations,
    boosting,
    clusters,
    columns,
    composed,
    decisions,
    encoders,
    ensembles,
    forests,
    imputers,
    iterative,
    labels,
    lengths,
    likelihoods,
    manifolds,
    processes,
    projections,
    quantiles,
    steps,
    transforming,
)
from modelpack.adapters.sklearn_converters.text import vectorizers
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.adapters.sklearn_loading import walk
from modelpack.adapters.sklearn_signature import has_several_labels
from modelpack.errors import UnsupportedOpsError

_Convert: TypeAlias = Callable[[Any, Any, Any], None]

CONVERTERS: dict[str, Callable[[Writer], None]] = {
    "AdditiveChi2Sampler": approximations.additive_chi2_sampler,
    "AdaBoostClassifier": ensembles.adaptive_boosting,
    "AdaBoostRegressor": composed.weighted_median,
    "AffinityPropagation": clusters.nearest_center,
    "BaggingClassifier": ensembles.bagging,
    "BernoulliRBM": projections.restricted_boltzmann,
    "Binarizer": columns.binarizer,
    "Birch": clusters.birch,
    "BisectingKMeans": clusters.bisecting_k_means,
    "CCA": projections.partial_least_squares,
    "ClassifierChain": labels.classifier_chain,
    "CountVectorizer": vectorizers.counts,
    "DictionaryLearning": iterative.sparse_code,
    "DummyClassifier": composed.dummy_classifier,
    "DummyRegressor": composed.dummy_regressor,
    "EllipticEnvelope": clusters.elliptic_envelope,
    "FactorAnalysis": projections.factor_analysis,
    "FastICA": projections.fast_ica,
    "FeatureAgglomeration": projections.feature_agglomeration,
    **dict.fromkeys(
        (
            *("GenericUnivariateSelect", "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe"),
            *("SelectKBest", "SelectPercentile", "VarianceThreshold"),
        ),
        projections.selection,
    ),
    "FixedThresholdClassifier": composed.threshold,
    "FunctionTransformer": composed.function,
    "GaussianNB": likelihoods.gaussian_naive_bayes,
    "GaussianProcessClassifier": processes.classifier,
    "ImputedEncoder": encoders.after_imputer,
    "HashingVectorizer": vectorizers.hashes,
    "IncrementalPCA": projections.principal_components,
    "Isomap": manifolds.isomap,
    "IsotonicRegression": steps.isotonic_regression,
    "IterativeImputer": iterative.iterative_imputer,
    "KBinsDiscretizer": columns.bins,
    "KernelDensity": approximations.kernel_density,
    "KernelPCA": approximations.kernel_components,
    "KernelRidge": approximations.kernel_ridge,
    "LabelPropagation": approximations.label_propagation,
    "LabelSpreading": approximations.label_propagation,
    "LatentDirichletAllocation": iterative.latent_dirichlet,
    "LinearDiscriminantAnalysis": composed.linear_discriminant,
    "LocallyLinearEmbedding": manifolds.locally_linear,
    "MeanShift": clusters.nearest_center,
    "MiniBatchDictionaryLearning": iterative.sparse_code,
    "MiniBatchNMF": iterative.mini_batch_nmf,
    "MiniBatchSparsePCA": projections.sparse_pca,
    "MissingIndicator": imputers.missing_indicator,
    "NMF": iterative.nmf,
    "NearestCentroid": clusters.nearest_centroid,
    "MultiOutputClassifier": labels.multi_output,
    "Normalizer": lengths.normalizer,
    "Nystroem": approximations.nystroem,
    "OneHotEncoder": encoders.one_hot,
    "OneVsOneClassifier": decisions.one_versus_one,
    "OrdinalEncoder": encoders.numbered,
    "OutputCodeClassifier": composed.output_code,
    "PCA": projections.principal_components,
    "PLSCanonical": projections.partial_least_squares,
    "PLSSVD": projections.pls_svd,
    "PolynomialCountSketch": approximations.polynomial_count_sketch,
    "PolynomialFeatures": columns.polynomial_features,
    "PowerTransformer": steps.power_transformer,
    "QuantileTransformer": quantiles.quantile_transformer,
    "RBFSampler": approximations.rbf_sampler,
    "RadiusNeighborsClassifier": clusters.radius_classifier,
    "RadiusNeighborsRegressor": clusters.radius_regressor,
    "RandomTreesEmbedding": forests.embedding,
    "RFE": projections.selection,
    "RFECV": projections.selection,
    "RadiusNeighborsTransformer": clusters.radius_transformer,
    "RegressorChain": composed.regressor_chain,
    "SequentialFeatureSelector": projections.selection,
    "SimpleImputer": imputers.simple_imputer,
    "SkewedChi2Sampler": approximations.skewed_chi2_sampler,
    "SparseCoder": iterative.sparse_code,
    "SparsePCA": projections.sparse_pca,
    "SparseRandomProjection": projections.random_projection,
    "SplineTransformer": steps.splines,
    "TargetEncoder": encoders.numbered,
    "TfidfTransformer": vectorizers.weights,
    "TfidfVectorizer": vectorizers.weighted_counts,
    "TransformedTargetRegressor": composed.transformed_target,
    "Transforming": transforming.transforming,
    "TunedThresholdClassifierCV": composed.threshold,
    "VotingClassifier": ensembles.voting,
}


# Those that skl2onnx's parser of classifiers asks for.
_OPTIONS = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True]}


# Those that take the place of skl2onnx's own for some estimators of a class.
INSTEAD: dict[str, tuple[Callable[[Writer], None], Callable[[Any], bool]]] = {
    "CalibratedClassifierCV": (composed.calibrated, composed.calibrates_itself),
    **{
        f"{name}{kind}": (forests.forest, lambda _: True)
        for name in ("DecisionTree", "ExtraTree", "ExtraTrees", "RandomForest")
        for kind in ("Classifier", "Regressor")
    },
    "BayesianGaussianMixture": (likelihoods.mixture, lambda _: True),
    "GaussianMixture": (likelihoods.mixture, lambda _: True),
    "GaussianProcessRegressor": (processes.regressor, processes.is_known),
    "HistGradientBoostingClassifier": (boosting.histogram_boosting, boosting.needs_own),
    "HistGradientBoostingRegressor": (boosting.histogram_boosting, boosting.needs_own),
    "KNeighborsClassifier": (clusters.nearest_classifier, clusters.needs_own_neighbors),
    "KNeighborsRegressor": (clusters.nearest_regressor, clusters.needs_own_neighbors),
    "MLPClassifier": (labels.perceptron, has_several_labels),
    "OneVsRestClassifier": (labels.one_versus_rest, lambda _: True),
    "RidgeClassifier": (labels.ridge, has_several_labels),
    "RidgeClassifierCV": (labels.ridge, has_several_labels),
    **dict.fromkeys(
        ("NuSVR", "OneClassSVM", "SVR"), (decisions.support_vectors, decisions.has_named_kernel)
    ),
    **dict.fromkeys(("NuSVC", "SVC"), (decisions.machine, decisions.decides_alone)),
    "StackingClassifier": (composed.stacking, composed.stacks_itself),
}


def _one_output(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> Any:
    """For an estimator that transforms, whatever its class or its parts could do."""
    return _declared(scope, model, inputs, inputs[0].type.__class__())


def _numbers(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> Any:
    """For a transformer that makes numbers of columns of any types."""
    return _declared(scope, model, inputs, guess_tensor_type(inputs[0].type))


def _imputed(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> Any:
    """For an imputer of texts or of numbers."""
    text = imputers.takes_text(model)
    kind = StringTensorType() if text else guess_tensor_type(inputs[0].type)
    return _declared(scope, model, inputs, kind)


def _declared(scope: Any, model: Any, inputs: list[Any], kind: Any) -> Any:
    operator = scope.declare_local_operator(sklearn_operator_name_map[type(model)], model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("variable", kind))
    return operator.outputs


def _several(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> Any:
    """For classifiers: labels in one output, and the probabilities of each in one each."""
    if not has_several_labels(model):
        return _parse_sklearn_classifier(scope, model, inputs, custom_parsers)
    operator = scope.declare_local_operator(sklearn_operator_name_map[type(model)], model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
    for _ in model.classes_ if _in_lists(model) else [None]:
        kind = guess_tensor_type(inputs[0].type)
        operator.outputs.append(scope.declare_local_variable("probabilities", kind))
    return operator.outputs


def _in_lists(item: Any) -> bool:
    """Whether an estimator answers the probabilities of each label by themselves."""
    return isinstance(item.classes_, list) and not hasattr(item, "chain_method_")


# Classifiers that may have several labels a row.
_OF_SEVERAL = (
    *("ClassifierChain", "DecisionTreeClassifier", "DummyClassifier", "ExtraTreeClassifier"),
    *("ExtraTreesClassifier", "KNeighborsClassifier", "MLPClassifier", "MultiOutputClassifier"),
    *("OneVsRestClassifier", "RadiusNeighborsClassifier", "RandomForestClassifier"),
    *("RidgeClassifier", "RidgeClassifierCV"),
)
_PARSERS = {
    **dict.fromkeys(_OF_SEVERAL, _several),
    "FeatureAgglomeration": _one_output,
    "ImputedEncoder": _numbers,
    "MissingIndicator": _numbers,
    "OneHotEncoder": _numbers,
    "OrdinalEncoder": _numbers,
    "RandomTreesEmbedding": _one_output,
    "RFE": _one_output,
    "RFECV": _one_output,
    "SimpleImputer": _imputed,
    "TargetEncoder": _numbers,
}


def register(model: Any) -> None:
    """Let skl2onnx know the classes of an estimator and of those inside of it.

    Where it has a converter of its own, ours takes its place, always or for some estimators.
    """
    for _, item in walk(model):
        kind: Any = type(item)
        if kind.__module__.partition(".")[0] in {"sklearn", "modelpack"}:
            _register(kind)


@cache
def _register(kind: Any) -> None:
    name = kind.__name__
    if name in CONVERTERS:
        update_registered_converter(
            kind,
            f"Modelpack{name}",
            _shapes_of_text if name in OF_TEXT else _shapes,
            _function(CONVERTERS[name]),
            options=_OPTIONS if issubclass(kind, ClassifierMixin | RFE) else None,
            parser=_PARSERS.get(name),
        )
    elif name in INSTEAD:
        converter, applies = INSTEAD[name]
        alias = sklearn_operator_name_map[kind]
        theirs = _converter_pool[alias]
        either = _either(_function(converter), theirs, applies)
        _converter_pool[alias] = RegisteredConverter(either, theirs.get_allowed_options())
        _shape_calculator_pool[alias] = _shapes_of_either(_shape_calculator_pool[alias], applies)
        if name in _PARSERS:
            update_registered_parser(kind, _PARSERS[name])


def _shapes_of_either(
    theirs: Callable[[Any], None], applies: Callable[[Any], bool]
) -> Callable[[Any], None]:
    def shapes(operator: Any) -> None:
        (_shapes if applies(operator.raw_operator) else theirs)(operator)

    return shapes


def _either(
    ours: _Convert, theirs: _Convert, applies: Callable[[Any], bool]
) -> Callable[[Any, Any, Any], None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        chosen = ours if applies(operator.raw_operator) else theirs
        chosen(scope, operator, container)

    return convert


def _function(converter: Callable[[Writer], None]) -> Callable[[Any, Any, Any], None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        try:
            converter(Writer(scope, operator, container))
        except NotImplementedError as error:
            item = operator.raw_operator
            name = type(getattr(item, "stands_for", item)).__name__
            raise UnsupportedOpsError(
                f"{name} cannot be converted to ONNX: {error}",
                hint="choose another setting, or move this step out of the model",
            ) from error

    return convert


def _shapes_of_text(operator: Any) -> None:
    item, rows = operator.raw_operator, operator.inputs[0].get_first_dimension()
    width = getattr(item, "n_features", None) or _width(item)
    operator.outputs[0].type = FloatTensorType([rows, width])


def _shapes(operator: Any) -> None:
    """Types and sizes of what an estimator answers."""
    item = operator.raw_operator
    rows = operator.inputs[0].get_first_dimension()
    real = guess_tensor_type(operator.inputs[0].type).__class__
    if is_classifier(item) and has_several_labels(item):
        return _shapes_of_several(operator, rows)
    *labels, last = operator.outputs
    if labels and is_classifier(item):
        text = np.asarray(item.classes_).dtype.kind not in "iubf"
        labels[0].type = (StringTensorType if text else Int64TensorType)([rows])
        last.type.shape = [rows, len(item.classes_)]
    elif labels:
        labels[0].type = Int64TensorType([rows])
        last.type.shape = [rows] if is_outlier_detector(item) else [rows, None]
    elif type(item).__name__ in _PARSERS:
        last.type.shape = [rows, _width(item)]
    else:
        last.type = real([rows, _width(item)])
    return None


def _shapes_of_several(operator: Any, rows: Any) -> None:
    item = operator.raw_operator
    label, *scores = operator.outputs
    text = isinstance(item.classes_, list) and any(
        np.asarray(classes).dtype.kind not in "iubf" for classes in item.classes_
    )
    label.type = (StringTensorType if text else Int64TensorType)([rows, len(item.classes_)])
    for output in scores:
        output.type.shape = [rows, None]


def _width(item: Any) -> int | None:
    """Columns of the answer of a transformer or a regressor, as far as it tells."""
    try:
        return len(item.get_feature_names_out())
    except (AttributeError, ValueError, TypeError):
        return None
