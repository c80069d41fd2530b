"""Values outside of inferred kinds: they keep a small probability, and totals are 1."""

import numpy as np
import pandas as pd
import pytest
from _densities import NAMES, small
from _tables import few_components, schema_of, view_of  # noqa: F401 - a fixture
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.model_selection import KFold, cross_validate

from skflows import (
    AdaptiveKernelDensity,
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    FlowRegressor,
    GaussianizationDensity,
    TableDensity,
)
from skflows.columns.checks import ColumnWarning
from skflows.columns.encoding import Encoding
from skflows.table._latent_classes import fit_latent_classes
from skflows.table._outside import Outside, outside_share, scale_of

LOADERS = [load_iris, load_wine, load_breast_cancer, load_diabetes, load_digits]
N_ROWS, N_COLUMNS, N_FOLDS = 60, 20, 2


def quick(**params):
    return TableDensity(**{"max_iter": 1, "n_orders": 1, "cv": 2, "random_state": 0} | params)


def real_table(load, is_mixed):
    """A table of scikit-learn's, with texts, one of which occurs once, and gaps."""
    X = load(as_frame=True).data.iloc[:, :N_COLUMNS]
    X = X.sample(N_ROWS, random_state=0).reset_index(drop=True)
    if is_mixed:
        rng = np.random.default_rng(0)
        X["word"] = rng.choice(list("abcd"), N_ROWS)
        X.loc[3, "word"] = "once"
        X = X.mask(rng.uniform(size=X.shape) < 0.05)
    return X


def off_by_half_a_step(X):
    """The table with one value of each column of numbers half a step off."""
    X = X.copy()
    for j, column in enumerate(X.select_dtypes("number").columns):
        values = X[column].astype(float)
        steps = np.diff(np.unique(values.dropna()))
        values.iloc[j % len(X)] = values.median() + (steps.min() if len(steps) else 1.0) / 2
        X[column] = values
    return X


@pytest.mark.filterwarnings("ignore:X has")
@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__)
def test_scores_of_held_out_rows_are_finite(load):
    X = real_table(load, is_mixed=True)
    folds = KFold(N_FOLDS, shuffle=True, random_state=0)
    of_folds = cross_validate(quick(), X, cv=folds, return_estimator=True)
    assert np.isfinite(of_folds["test_score"]).all()
    for density, (_, held_out) in zip(of_folds["estimator"], folds.split(X), strict=True):
        assert np.isfinite(density.score_samples(off_by_half_a_step(X.iloc[held_out]))).all()


@pytest.mark.filterwarnings("ignore:X has", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        *(small(name) for name in NAMES if name not in ("waveflow", "videoflow")),
        AdaptiveKernelDensity(),
        DensityOutlierDetector(random_state=0),
        GaussianizationDensity(random_state=0),
        quick(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scores_of_numbers_off_the_lattice_are_finite(estimator):
    X = real_table(load_wine, is_mixed=False)
    estimator.fit(X[::2])
    assert np.isfinite(estimator.score_samples(off_by_half_a_step(X[1::2]))).all()


@pytest.mark.filterwarnings("ignore:X has")
def test_predictors_take_what_fit_has_not_seen():
    X = real_table(load_wine, is_mixed=True)
    y = pd.Series(np.arange(N_ROWS) % 2)
    new = off_by_half_a_step(X[1::2])
    new.iloc[0, new.columns.get_loc("word")] = "new"
    classifier = DensityClassifier(quick()).fit(X[::2], y[::2])
    assert 0 <= classifier.score(new, y[1::2]) <= 1
    assert np.isfinite(classifier.predict_proba(new)).all()
    conditional = ConditionalDensity(small("maf"))
    regressor = FlowRegressor(conditional, random_state=0).fit(X[::2], X["hue"][::2].fillna(1.0))
    log_prob = regressor.predict_distribution(new).logpdf(np.full(len(new), 0.906))
    assert np.isfinite(log_prob).all()
    detector = DensityOutlierDetector(quick(), calibration="conformal").fit(X[::2])
    assert np.isfinite(detector.score_samples(new)).all()


RNG = np.random.default_rng(0)
# Name: values of a column, and the points of its lattice, or its atoms.
KINDS = {
    "count": (RNG.poisson(30, 200), np.arange(400)),
    "few counts": (RNG.poisson(2, 200), np.arange(400)),
    "integer": (np.rint(30 * RNG.normal(size=200)), np.arange(-600, 600)),
    "rounded": (np.round(RNG.gamma(2.0, size=300), 1), np.arange(800) / 10),
    "few multiples": (RNG.integers(-3, 4, 300) / 4, np.arange(-400, 400) / 4),
    "positive": (RNG.exponential(size=200), []),
    "share": (RNG.uniform(size=200), []),
    "atoms": (np.where(RNG.uniform(size=200) < 0.3, 0.0, RNG.gamma(2.0, size=200)), [0.0]),
    "often 0": (RNG.poisson(30, 200) * (np.arange(200) % 2), np.arange(400)),
    "often 100": (
        np.where(np.arange(200) % 3, RNG.poisson(60, 200).clip(0, 99), 100),
        np.arange(101),
    ),
}


def member_of(values):
    X = np.asarray(values, dtype=float)[:, None]
    schema = schema_of(X, handle_unknown="warn", random_state=np.random.RandomState(0))

    def view(x):
        return view_of(np.atleast_1d(np.asarray(x, dtype=float))[:, None], schema)

    member = fit_latent_classes(view(values), 1, "quantile", np.random.RandomState(0))
    return schema, lambda x: np.exp(member.log_prob(view(x)))


@pytest.mark.parametrize("name", KINDS)
def test_total_probability_is_1(name):
    """Of points, of what lies between them, and of what lies beyond bounds."""
    values, points = KINDS[name]
    schema, density = member_of(values)
    (part,) = schema.variables
    step = part.step if part.has_number else part.lattice[0]
    old = part.outside
    share = old.share if step is not None else 0.2  # a wrong share of a density would be seen
    part.outside = Outside(share, old.low, old.high, None, old.scale)
    part.outside.step = step
    low, high = part.outside.low, part.outside.high
    assert old.share == pytest.approx(outside_share(len(values)))
    atoms = part.atoms if part.has_number else []
    points = np.array([x for x in points if low < x < high and x not in atoms])
    of_atoms = density(atoms).sum() if len(atoms) else 0.0
    total = of_atoms
    if step is not None:  # the density between points is constant in each cell
        total += density(points).sum() + density(points + 0.3 * step).sum() * step
    else:
        grid = np.linspace(max(low, -20.0), min(high, 40.0), 400_002)[1:-1]
        total += density(grid).sum() * (grid[1] - grid[0])
    for end, direction in ((low, -1), (high, 1)):
        if np.isfinite(end):
            far = old.scale * np.tan(np.linspace(0, np.pi / 2, 20_001)[:-1] + np.pi / 80_000)
            slope = old.scale * (1 + (far / old.scale) ** 2) * np.pi / 40_000
            x = end + direction * far
            # What is next to an atom of a lattice counts as the atom.
            is_atom = (np.abs(x[:, None] - np.array(atoms)) < 0.01 * (step or 0.0)).any(axis=1)
            beyond = (density(x[~is_atom]) * slope[~is_atom]).sum()
            n_ends = np.isfinite([low, high]).sum()
            assert beyond == pytest.approx(share * (1 - of_atoms) / n_ends, rel=5e-3)
            total += beyond
    assert total == pytest.approx(1, abs=2e-6 if step is not None else 3e-3)


def test_shares_come_from_the_data():
    """Unseen categories are as likely as categories that occur once."""
    assert outside_share(98) == pytest.approx(1e-4)
    few, many = (
        quick().fit(pd.DataFrame({"word": ["a", "b"] * 40 + once}))
        for once in ([], list("cdefghij"))
    )
    new = pd.DataFrame({"word": ["new"]})
    with pytest.warns(UserWarning, match=r"such as 'new' in column 'word'\. They"):
        scores = few.score_samples(new)[0], many.score_samples(new)[0]
    assert scores == pytest.approx((np.log(0.01 / 82), np.log(8.01 / 90)))
    seen = np.exp(many.score_samples(pd.DataFrame({"word": list("abcdefghij")}))).sum()
    assert seen + np.exp(scores[1]) == pytest.approx(1)


def mixed(n=200):
    rng = np.random.default_rng(0)
    size = rng.normal(size=n)
    return pd.DataFrame(
        {
            "hue": np.round(1 + size / 4, 2),
            "kind": np.where(size + rng.normal(size=n) > 0, "big", "small"),
            "mass": np.exp(size) + 0.1 * rng.exponential(size=n),
        }
    )


def test_what_is_outside_of_a_kind_tells_nothing_of_other_columns():
    """An unseen category is like an unknown one, and a number between points like the nearest."""
    density = quick(max_iter=5).fit(mixed())
    new = {"kind": "huge", "hue": 1.0}
    with pytest.warns(UserWarning, match="'huge' in column 'kind'"):
        found = density.quantile("mass", pd.DataFrame([new]), [0.1, 0.9])
    assert found == pytest.approx(
        density.quantile("mass", pd.DataFrame([{"hue": 1.0}]), [0.1, 0.9])
    )
    off, on = (density.quantile("mass", pd.DataFrame([{"hue": x}]), 0.5) for x in (1.202, 1.2))
    assert off == pytest.approx(on)
    with pytest.warns(UserWarning, match="-1 in column 'mass'"):
        beyond = density.predict_proba("kind", pd.DataFrame([{"mass": -1.0}]))
    unknown = density.predict_proba("kind", pd.DataFrame([{"mass": np.nan}]))
    assert beyond == pytest.approx(unknown)


def test_given_values_outside_of_a_kind_are_kept():
    density = quick().fit(mixed())
    given = pd.DataFrame({"kind": ["huge", "big"], "hue": [0.906, 1.0]})
    with pytest.warns(UserWarning, match="'huge' in column 'kind'"):
        drawn = density.sample(2, random_state=0, given=given)
    assert drawn["kind"].tolist() == ["huge", "huge", "big", "big"]
    assert drawn["hue"].tolist() == [0.906, 0.906, 1.0, 1.0]
    assert drawn["mass"].notna().all()


def test_dates_outside_of_the_range_have_a_density():
    days = pd.date_range("2024-01-01", "2024-12-31", freq="D")
    density = quick().fit(pd.DataFrame({"day": days, "at": days + pd.Timedelta(hours=9)}))
    far = pd.to_datetime(["1900-01-01T00:00", "2250-06-01T00:00", "2024-05-05T10:17"])
    with pytest.warns(UserWarning, match="in column 'at'"):
        scores = density.score_samples(pd.DataFrame({"day": far, "at": far}))
    assert np.isfinite(scores).all()


def test_stated_kinds_and_error_refuse():
    table = mixed()
    stated = quick(columns={"hue": ("rounded", 0, None)}, handle_unknown="error").fit(table)
    with pytest.warns(UserWarning, match=r"0.906 in column 'hue'.* scores -inf"):
        scores = stated.score_samples(table[:2].assign(hue=[0.906, 1.0]))
    assert np.isneginf(scores).tolist() == [True, False]
    with pytest.raises(ValueError, match=r"has categories that fit has not seen: \['huge'\]"):
        stated.score_samples(table[:2].assign(kind="huge"))


def test_mistyped_categories_have_a_suggestion():
    table = pd.DataFrame({"kind": ["big", "small"]})
    encoding, _ = Encoding.read(table, handle_unknown="warn")
    for texts, details in (
        (["Smal"], r" \(did you mean 'small'\?\)\. They"),
        (["big", "SMALL"], r" \(1 of 2 rows; did you mean 'small'\?\)\."),
        (["huge"], r"\. They"),
    ):
        with pytest.warns(ColumnWarning, match=f"{texts[-1]!r} in column 'kind'{details}"):
            encoding.encode(pd.DataFrame({"kind": texts}))
    encoding.handle_unknown = "error"
    with pytest.raises(ValueError, match=r"\['bigg'\] \(did you mean 'big'\?\)\. Map"):
        encoding.encode(pd.DataFrame({"kind": ["bigg"]}))


def test_tails_of_few_levels_end():
    """A number far beyond a few levels has a density, which no overflow makes 0."""
    density = quick().fit(pd.DataFrame({"x": np.tile(np.arange(6) / 1e6, 20)}))
    far = pd.DataFrame({"x": [1e-3, 1.0, 1e15, -1e304, 1e304]})
    with pytest.warns(UserWarning, match="in column 'x'"):
        scores = density.score_samples(far)
    assert (scores > -2000).all() and scores[0] > scores[1] > scores[2] > scores[4]


def test_unseen_categories_have_no_share_if_they_are_an_error():
    words = pd.DataFrame({"word": ["a", "b"] * 10 + list("cdefghij")})
    density = quick(handle_unknown="error").fit(words)
    assert np.exp(density.score_samples(words.drop_duplicates())).sum() == pytest.approx(1)


def test_numbers_beyond_few_levels_tell_nothing_of_other_columns():
    rng = np.random.default_rng(0)
    count = rng.integers(0, 6, 120)
    kind = np.where(count + rng.normal(size=120) > 2.5, "big", "small")
    density = quick(max_iter=5).fit(pd.DataFrame({"count": count, "kind": kind}))
    with pytest.warns(UserWarning, match=r"-50 in column 'count'; its values"):
        beyond = density.predict_proba("kind", pd.DataFrame({"count": [-50.0]}))
    unknown = density.predict_proba("kind", pd.DataFrame({"count": [np.nan]}))
    assert beyond == pytest.approx(unknown)


def test_numbers_between_few_levels_are_like_the_nearest():
    """They are rare, but not as rare as numbers beyond all levels."""
    count = np.repeat([0, 1, 2, 4, 5, 9], [30, 40, 50, 60, 20, 10])
    kind = np.where(np.arange(len(count)) % 3 + count > 3, "big", "small")
    density = quick(max_iter=5).fit(pd.DataFrame({"count": count, "kind": kind}))
    numbers = pd.DataFrame({"count": [3.0, 6.0, 7.0, 8.0, 10.0, 9.0]})
    between, *long_gap, beyond, seen = np.exp(density.marginal(["count"]).score_samples(numbers))
    assert beyond < min(long_gap) < max(long_gap) < between < seen / 2
    assert between == pytest.approx(1 / 210, rel=0.2)
    asked = pd.DataFrame({"kind": ["big", "small"]})
    distribution = density.predict_distribution("count", asked)
    assert distribution.support.tolist() == list(range(10))
    pmf = distribution.pmf(np.arange(10)[:, None])
    assert pmf.sum(axis=0) == pytest.approx(1)
    assert pmf[3] == pytest.approx(np.exp(distribution.logpdf(3)), rel=0.02)
    assert distribution.cdf(3) - distribution.cdf(2) == pytest.approx(pmf[3])
    assert distribution.mean() == pytest.approx(np.arange(10) @ pmf)
    three, four = density.predict_proba("kind", pd.DataFrame({"count": [3, 4]}))
    assert three == pytest.approx(four, abs=0.15)


def test_few_numbers_far_apart_are_not_listed():
    density = quick().fit(pd.DataFrame({"x": [0, 1, 10**9] * 20}))
    between = density.score_samples(pd.DataFrame({"x": [5, 5 * 10**8]}))
    assert between == pytest.approx(np.log(1 / 61 / (10**9 - 2)), abs=1)
    assert len(density.predict_distribution("x", pd.DataFrame({"x": [0]})).support) == 3


def test_sums_between_levels_are_no_level():
    """A rule that expects an unseen number does not speak for the nearest one."""
    rng = np.random.default_rng(0)
    a, b = rng.choice([0, 1, 5], 200), rng.choice([0, 2, 9], 200)
    keep = ~((a == 1) & (b == 2))
    table = pd.DataFrame({"a": a, "b": b, "total": a + b})[keep]
    density = quick(max_iter=2).fit(table)
    assert "total = a + b" in density.rules_["rule"].tolist()
    distribution = density.predict_distribution("total", pd.DataFrame({"a": [1], "b": [2]}))
    assert distribution.pmf(2)[0] < 0.9


def test_warnings_of_dates_show_dates():
    days = pd.date_range("2024-01-01", periods=90, freq="D") + pd.Timedelta(hours=9)
    density = quick().fit(pd.DataFrame({"at": days}))
    with pytest.warns(UserWarning, match="X has 2024-05-05 10:17:00 in column 'at'") as caught:
        density.score_samples(pd.DataFrame({"at": pd.to_datetime(["2024-05-05T10:17"])}))
    assert "columns=" not in str(caught[0].message)


def test_weights_and_copies_of_rows_agree_on_tails():
    x, weight = RNG.normal(size=40), RNG.integers(1, 4, 40)
    assert scale_of(x, weight.astype(float)) == pytest.approx(
        scale_of(np.repeat(x, weight), np.ones(weight.sum()))
    )


def test_conditions_outside_of_a_kind_warn():
    density = quick().fit(mixed())
    with pytest.warns(UserWarning, match="-1 in column 'mass'; its values"):
        density.sample(3, given={"mass": -1.0}, random_state=0)
    with pytest.warns(UserWarning, match="-1 in column 'mass'; its values"):
        density.predict_proba("kind", {"mass": -1.0})


def test_a_call_warns_once_and_of_the_rows_of_the_user():
    table = mixed(90)
    classifier = DensityClassifier(quick()).fit(table, np.arange(90) % 2)
    detector = DensityOutlierDetector(quick(), calibration="conformal", cv=2).fit(table)
    new = table[:3].assign(mass=-1.0)
    for ask in (classifier.predict_proba, detector.p_values):
        with pytest.warns(UserWarning, match="-1 in column 'mass' in 3 of 3 rows") as caught:
            ask(new)
        assert len(caught) == 1
    with pytest.warns(UserWarning) as caught:
        detector.explain(new)
    assert {"in 3 of 3 rows" in str(warning.message) for warning in caught} == {True}
