"""How good a density is that was chosen for outlier detection without labels.

    python benchmarks/choosing.py --data DIR

The setting is one-class, as in outliers.py. One of 17 quick densities is chosen by the likelihood
of held-out rows, or by its agreement with the others on the rows to be ranked. AUROC in per cent.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from outliers import tables
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from skflows import TransformedDensity
from skflows.ensemble._simple_densities import GaussianKernels, StandardNormal
from skflows.outlier import agreement

MAX_ROWS = 2_000  # to fit to
CANDIDATES = [
    *(
        (space, GaussianMixture(k, reg_covar=1e-3, random_state=0))
        for k in (1, 2, 4, 8, 16)
        for space in ("standardize", "quantile")
    ),
    *(
        (space, GaussianKernels(h))
        for h in (0.14, 0.41, 1.18)
        for space in ("standardize", "whiten")
    ),
    (("quantile", "whiten"), StandardNormal()),
]


def run(path, seed):
    train, new, y = tables(path, "one-class", seed)
    fit, held_out = train_test_split(train[:MAX_ROWS], test_size=0.3, random_state=seed)
    densities = [
        TransformedDensity(density, preprocessing=space, random_state=seed).fit(fit)
        for space, density in CANDIDATES
        if getattr(density, "n_components", 1) <= len(fit)
    ]
    areas = np.array([roc_auc_score(y, -density.score_samples(new)) for density in densities])
    likelihood = [density.score(held_out) for density in densities]
    return 100 * np.array(
        [
            areas.mean(),
            areas[np.argmax(likelihood)],
            areas[np.nanargmax(agreement(densities, new))],
            areas.max(),
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of npz tables with X and y"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| table | mean of all | by likelihood | by agreement | best, known afterwards |")
    print("|---|---|---|---|---|")
    rows = []
    with threadpool_limits(1):
        for path in sorted(args.data.glob("*.npz")):
            rows.append(run(path, args.seed))
            print(f"| {path.stem} | " + " | ".join(f"{v:.1f}" for v in rows[-1]) + " |", flush=True)
    print("| mean | " + " | ".join(f"{v:.1f}" for v in np.mean(rows, axis=0)) + " |")


if __name__ == "__main__":
    main()
