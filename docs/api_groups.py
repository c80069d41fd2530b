"""Public names by task, in the order of the API reference: a page for each group."""

# Page: title, introduction, names, each with its module. A name is listed where it is documented.
GROUPS = {
    "tables": (
        "Tables",
        "Mixed columns with missing values: synthetic rows, imputation, answers about any columns.",
        {
            "skflows": ["TableDensity", "TableImputer"],
            "skflows.table": ["ConditionalTable", "DateDistribution"],
        },
    ),
    "densities": (
        "Densities of numbers",
        "Mixtures that need no tuning, kernels, and the base class of flows. All have the methods "
        "of a density and of an outlier detector.",
        {
            "skflows": [
                *("AutoDensity", "StackedDensity", "TransformedDensity"),
                *("AdaptiveKernelDensity", "GaussianizationDensity", "FlowDensity"),
            ]
        },
    ),
    "flows": (
        "Flows",
        "Densities with a latent space, in which rows are close to independent standard normal. "
        "They share most of their parameters; :doc:`../choosing` compares them.",
        {
            "skflows": [
                *("NSFDensity", "MAFDensity", "IAFDensity", "RealNVPDensity", "NICEDensity"),
                *("GlowDensity", "PlanarDensity", "ResidualDensity", "CNFDensity"),
            ]
        },
    ),
    "prediction": (
        "Prediction",
        "The distribution of outputs given a row.",
        {
            "skflows": ["FlowRegressor", "DensityClassifier", "ConditionalDensity"],
            "skflows.conditional": ["ConditionalDistribution"],
        },
    ),
    "detection": (
        "Outlier detection",
        "P-values, reasons, and limits on false discoveries.",
        {
            "skflows": ["DensityOutlierDetector"],
            "skflows.outlier": [
                *("OutlierEnsemble", "DefectDetector", "PyODDetector", "agreement"),
                "outlier_average_precision",
            ],
        },
    ),
    "images_and_sound": (
        "Images, sound, molecules and clouds of points",
        "Densities whose rows are no tables. `GlowDensity` takes images too (:doc:`flows`).",
        {
            "skflows": ["VideoFlowDensity", "WaveFlowDensity", "FlowCompressor"],
            "skflows.graphs": ["MoleculeDensity"],
            "skflows.sets": ["PointCloudDensity"],
        },
    ),
    "variational": (
        "Bayesian posteriors",
        "A flow that is fitted to a function, such as the logarithm of a posterior.",
        {"skflows": ["VariationalDensity"], "skflows.variational": ["RefinedSample"]},
    ),
    "fitting": (
        "Searches, large data and saved models",
        "Choose parameters, train on clusters, store and export.",
        {
            "skflows.model_selection": ["FlowGridSearchCV"],
            "skflows.callbacks": ["Checkpoint"],
            "skflows.dask": ["DaskDensity"],
            "skflows": ["load", "export"],
        },
    ),
    "displays": (
        "Displays",
        "Pictures by matplotlib. Each display has `from_estimator` or `from_predictions`.",
        {
            "skflows.inspection": [
                *("SamplesDisplay", "DensityDisplay", "LatentDisplay", "LossCurveDisplay"),
                *(
                    "LeaderboardDisplay",
                    "OutlierScoreDisplay",
                    "PValueDisplay",
                    "OutlierCurveDisplay",
                ),
                *("OutlierBoundaryDisplay", "ExplanationDisplay", "PredictiveBandsDisplay"),
                *("PredictiveCalibrationDisplay", "ConditionalDensityDisplay"),
                *("PosteriorCalibrationDisplay", "posterior_calibration", "ImageGridDisplay"),
                "PointCloudDisplay",
            ]
        },
    ),
    "bijections": (
        "Bijections",
        "PyTorch modules that the flows consist of. :doc:`../add_an_architecture` shows how to "
        "combine them.",
        {
            "skflows.bijections": [
                *(
                    "Bijection",
                    "Chain",
                    "Inverse",
                    "Affine",
                    "ElementwiseAffine",
                    "Shift",
                    "ActNorm",
                ),
                *("Permutation", "Rotation", "LULinear", "Coupling", "MaskedAutoregressive"),
                *(
                    "RationalQuadraticSpline",
                    "Planar",
                    "Residual",
                    "Continuous",
                    "Squeeze",
                    "Univariate",
                ),
                *("Pointwise", "Asinh", "Bounded", "Standardize", "Whiten", "MarginalQuantile"),
                *("GridCoupling", "GridAutoregressive", "FrameAutoregressive"),
            ]
        },
    ),
}
TEMPLATES = {"skflows.model_selection": "search", "skflows.bijections": "bijection"}
