"""Which estimators are computed in float64 between their steps, though they take float32."""

from __future__ import annotations

from typing import Any

from modelpack.adapters.sklearn_loading import walk

# Those whose answers depend on small differences of large numbers, on which of several points
# is nearest, on a threshold that was learned, or on exponentials of sums: rounding between the
# steps is seen in them.
_SENSITIVE = {
    *(
        "AdaBoostRegressor",
        "AdditiveChi2Sampler",
        "AffinityPropagation",
        "BernoulliNB",
        "Birch",
        "BisectingKMeans",
    ),
    *("ComplementNB", "EllipticEnvelope", "FactorAnalysis", "FastICA", "FunctionTransformer"),
    *("BayesianGaussianMixture", "GaussianMixture"),
    *("FixedThresholdClassifier", "TunedThresholdClassifierCV"),
    *("GaussianNB", "GaussianProcessClassifier", "GaussianProcessRegressor", "IsotonicRegression"),
    *("Isomap", "IterativeImputer", "KMeans", "KNeighborsClassifier"),
    *("KNeighborsRegressor", "KernelDensity", "KernelPCA", "KernelRidge", "LabelPropagation"),
    *("LabelSpreading", "LocalOutlierFactor", "LocallyLinearEmbedding", "MeanShift"),
    *("MiniBatchKMeans", "MiniBatchNMF", "MultinomialNB", "NMF", "NearestCentroid", "Nystroem"),
    *("PolynomialCountSketch", "PolynomialFeatures", "PowerTransformer"),
    *("QuadraticDiscriminantAnalysis", "QuantileTransformer", "RBFSampler"),
    *("RadiusNeighborsClassifier", "RadiusNeighborsRegressor", "SkewedChi2Sampler"),
    "SplineTransformer",
}

# Other estimators whose converters, ours or skl2onnx's, are right in float64: each was compared.
_CAPABLE = {
    *("ARDRegression", "AdaBoostClassifier", "BaggingClassifier", "BaggingRegressor"),
    *("BayesianRidge", "BernoulliRBM", "Binarizer", "CCA", "CalibratedClassifierCV"),
    *("ColumnTransformer", "DecisionTreeClassifier", "DecisionTreeRegressor"),
    *("DictionaryLearning", "DummyClassifier", "DummyRegressor", "ElasticNet", "ElasticNetCV"),
    *("ExtraTreeClassifier", "ExtraTreeRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"),
    *(
        "FeatureAgglomeration",
        "FeatureUnion",
        "FrozenEstimator",
        "GammaRegressor",
    ),
    *("GaussianRandomProjection", "GridSearchCV", "HalvingGridSearchCV"),
    *(
        "HalvingRandomSearchCV",
        "HuberRegressor",
        "IncrementalPCA",
        "KBinsDiscretizer",
        "Lars",
        "LarsCV",
        "Lasso",
    ),
    *("LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LatentDirichletAllocation"),
    *("LinearDiscriminantAnalysis", "LinearRegression", "LinearSVR", "LogisticRegression"),
    *("LogisticRegressionCV", "MLPClassifier", "MLPRegressor", "MaxAbsScaler", "MinMaxScaler"),
    *("MiniBatchDictionaryLearning", "MiniBatchSparsePCA", "MissingIndicator", "Normalizer"),
    *("OneHotEncoder", "OneVsOneClassifier", "OneVsRestClassifier", "OrdinalEncoder"),
    *("OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "OutputCodeClassifier", "PCA"),
    *("PLSCanonical", "PLSRegression", "PLSSVD", "PassiveAggressiveClassifier", "PoissonRegressor"),
    *("PassiveAggressiveRegressor", "Perceptron", "Pipeline", "QuantileRegressor"),
    *("RANSACRegressor", "RFE", "RFECV", "RandomForestClassifier", "RandomForestRegressor"),
    *("RandomTreesEmbedding", "RandomizedSearchCV", "RegressorChain", "Ridge", "RidgeCV"),
    *("RobustScaler", "SGDClassifier", "SGDOneClassSVM", "SGDRegressor", "SelectFromModel"),
    *("SelectKBest", "SelectPercentile", "SelfTrainingClassifier", "SequentialFeatureSelector"),
    *("SimpleImputer", "SparseCoder", "SparsePCA", "SparseRandomProjection"),
    *("NuSVC", "NuSVR", "OneClassSVM", "SVC", "SVR"),
    *("StackingClassifier", "StackingRegressor", "StandardScaler", "TheilSenRegressor"),
    *("TransformedTargetRegressor", "TruncatedSVD"),
    *("TweedieRegressor", "VarianceThreshold", "VotingClassifier", "VotingRegressor"),
}


def wants_float64(model: Any) -> bool:
    """Whether an estimator is worth to be computed in float64, and may be."""
    names = {type(item).__name__ for _, item in walk(model)}
    return bool(names & _SENSITIVE) and names <= _SENSITIVE | _CAPABLE
