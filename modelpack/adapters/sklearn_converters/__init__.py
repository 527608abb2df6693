"""Converters to ONNX of estimators that skl2onnx does not know, or gets wrong.

Each is a function of a `Writer`, which holds the fitted estimator and appends nodes. They are
registered as skl2onnx's own converters are (``update_registered_converter``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import sklearn.experimental.enable_halving_search_cv  # noqa: F401
from skl2onnx import update_registered_converter
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common.data_types import Int64TensorType, StringTensorType
from sklearn.base import ClassifierMixin, is_classifier, is_outlier_detector
from sklearn.utils import all_estimators

from modelpack.adapters.sklearn_converters import (
    approximations,
    clusters,
    composed,
    projections,
    steps,
)
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.errors import UnsupportedOpsError

CONVERTERS: dict[str, Callable[[Writer], None]] = {
    "AdditiveChi2Sampler": approximations.additive_chi2_sampler,
    "AffinityPropagation": clusters.nearest_center,
    "BernoulliRBM": projections.restricted_boltzmann,
    "Birch": clusters.birch,
    "BisectingKMeans": clusters.bisecting_k_means,
    "CCA": projections.partial_least_squares,
    "DummyClassifier": composed.dummy_classifier,
    "DummyRegressor": composed.dummy_regressor,
    "EllipticEnvelope": clusters.elliptic_envelope,
    "FactorAnalysis": projections.factor_analysis,
    "FastICA": projections.fast_ica,
    "FeatureAgglomeration": projections.feature_agglomeration,
    "FixedThresholdClassifier": composed.threshold,
    "FunctionTransformer": composed.function,
    "IsotonicRegression": steps.isotonic_regression,
    "KernelDensity": approximations.kernel_density,
    "KernelRidge": approximations.kernel_ridge,
    "LabelPropagation": approximations.label_propagation,
    "LabelSpreading": approximations.label_propagation,
    "LinearDiscriminantAnalysis": composed.linear_discriminant,
    "MeanShift": clusters.nearest_center,
    "MiniBatchSparsePCA": projections.sparse_pca,
    "MissingIndicator": projections.missing_indicator,
    "NearestCentroid": clusters.nearest_centroid,
    "Nystroem": approximations.nystroem,
    "OutputCodeClassifier": composed.output_code,
    "PLSCanonical": projections.partial_least_squares,
    "PLSSVD": projections.pls_svd,
    "PolynomialCountSketch": approximations.polynomial_count_sketch,
    "RBFSampler": approximations.rbf_sampler,
    "RadiusNeighborsClassifier": clusters.radius_classifier,
    "RadiusNeighborsRegressor": clusters.radius_regressor,
    "RadiusNeighborsTransformer": clusters.radius_transformer,
    "RegressorChain": composed.regressor_chain,
    "SequentialFeatureSelector": projections.selection,
    "SkewedChi2Sampler": approximations.skewed_chi2_sampler,
    "SparsePCA": projections.sparse_pca,
    "SparseRandomProjection": projections.random_projection,
    "SplineTransformer": steps.splines,
    "TransformedTargetRegressor": composed.transformed_target,
    "TunedThresholdClassifierCV": composed.threshold,
}


# Those that skl2onnx's parser of classifiers asks for.
_OPTIONS = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True]}


@cache
def register() -> None:
    """Let skl2onnx know all of them; those of its own for the same estimators give way."""
    kinds = dict(all_estimators())
    for name, converter in CONVERTERS.items():
        kind = kinds[name]
        update_registered_converter(
            kind,
            f"Modelpack{name}",
            _shapes,
            _function(converter),
            options=_OPTIONS if issubclass(kind, ClassifierMixin) else None,
            parser=_one_output if name == "FeatureAgglomeration" else None,
        )


def _one_output(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> Any:
    """What skl2onnx expects of an estimator that transforms, although it is a clusterer."""
    operator = scope.declare_local_operator(sklearn_operator_name_map[type(model)], model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("variable", inputs[0].type.__class__()))
    return operator.outputs


def _function(converter: Callable[[Writer], None]) -> Callable[[Any, Any, Any], None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        try:
            converter(Writer(scope, operator, container))
        except NotImplementedError as error:
            name = type(operator.raw_operator).__name__
            raise UnsupportedOpsError(
                f"{name} cannot be converted to ONNX: {error}",
                hint="choose another setting, or move this step out of the model",
            ) from error

    return convert


def _shapes(operator: Any) -> None:
    """Types and sizes of what an estimator answers."""
    item = operator.raw_operator
    rows = operator.inputs[0].get_first_dimension()
    *labels, last = operator.outputs
    real = operator.inputs[0].type.__class__
    if is_classifier(item):
        text = np.asarray(item.classes_).dtype.kind not in "iubf"
        labels[0].type = (StringTensorType if text else Int64TensorType)([rows])
        last.type.shape = [rows, len(item.classes_)]
    elif labels:
        labels[0].type = Int64TensorType([rows])
        last.type.shape = [rows] if is_outlier_detector(item) else [rows, None]
    else:
        last.type = real([rows, _width(item)])


def _width(item: Any) -> int | None:
    """Columns of the answer of a transformer or a regressor, as far as it tells."""
    try:
        return len(item.get_feature_names_out())
    except (AttributeError, ValueError, TypeError):
        return None
