"""Densities of molecules."""

import pickle
import time

import numpy as np
import pytest
from _densities import AtEpochEnd, check_without_tables
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

import skflows
from skflows.graphs import MoleculeDensity

Chem = pytest.importorskip("rdkit.Chem")
torch = pytest.importorskip("torch")

SMILES = [
    "CCO", "CCN", "CCCO", "CC(C)O", "c1ccccc1", "Cc1ccccc1", "CC(=O)O", "CCC#N", "C1CC1N",
    "O=C1CCCN1", "c1cc[nH]c1", "CS(=O)(=O)N", "C[N+](=O)[O-]", "Clc1ccco1", "C", "CC", "CO", "O",
]  # fmt: skip


def small(**parameters):
    settings = {"hidden_size": 16, "n_layers": 2, "max_iter": 4, "random_state": 0}
    return MoleculeDensity(**settings | parameters)


@pytest.fixture(scope="module", params=["categorical", "flow"])
def density(request):
    return small(head=request.param).fit(SMILES * 4)


def written(smiles, rng):
    """Return the SMILES of a molecule with its atoms in another order."""
    molecule = Chem.MolFromSmiles(smiles)
    order = rng.permutation(molecule.GetNumAtoms()).tolist()
    return Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False)


def test_different_smiles_of_a_molecule_have_equal_scores(density):
    rng = np.random.RandomState(0)
    others = [written(smiles, rng) for smiles in SMILES]
    assert others != SMILES
    np.testing.assert_array_equal(density.score_samples(others), density.score_samples(SMILES))
    np.testing.assert_array_equal(density.transform(others), density.transform(SMILES))


def test_a_score_does_not_depend_on_other_molecules(density):
    alone = [density.score_samples([smiles])[0] for smiles in SMILES]
    np.testing.assert_allclose(density.score_samples(SMILES), alone, rtol=1e-9)
    alone = np.vstack([density.transform([smiles]) for smiles in SMILES])
    np.testing.assert_allclose(density.transform(SMILES), alone, atol=1e-9)


def test_samples_have_the_probability_that_scores_say(density):
    """Molecules of one or two equal atoms can be grown in one way only."""
    n = 2000
    drawn = density.sample(n, random_state=0, check_valency=False, temperature=1.0)
    seen = np.array(["" if smiles is None else smiles for smiles in drawn])
    for smiles in "C", "O", "CC":
        expected = np.exp(density.score_samples([smiles])[0])
        error = np.sqrt(expected * (1 - expected) / n)
        assert abs((seen == smiles).mean() - expected) < 4 * error, smiles


def test_drawing_takes_the_steps_that_scoring_does():
    """At temperature 0, each step takes the likeliest value, by the pass over whole molecules."""
    from skflows.graphs._growth import history
    from skflows.graphs._network import Molecules

    density = small(head="categorical").fit(SMILES * 4)
    network = density.network_
    types, bonds = network.grow(1, 8, 0.0, None, torch.Generator().manual_seed(0))
    n_atoms = (types >= 0).sum()
    assert n_atoms > 1
    ended = np.full((1, n_atoms + 1), -1)
    ended[:, :n_atoms] = types[:, :n_atoms]
    bonds = bonds[:, :n_atoms, :n_atoms]
    molecule = Molecules(*map(torch.from_numpy, (ended, bonds, *history(bonds))))
    for outputs, values, allowed, _ in network.outputs(molecule.rows(slice(None))):
        likeliest = log_probs_of_all(network.head, outputs, allowed).argmax(1)
        n = len(values) if n_atoms < 8 else len(values) - 1  # the last one may not have ended
        np.testing.assert_array_equal(likeliest[:n], values[:n])


def test_distances_and_sizes_of_rings():
    from scipy.sparse.csgraph import shortest_path

    from skflows.graphs._growth import FAR, Growth
    from skflows.graphs._molecules import read_graphs

    for smiles in "O=C1CCCN1", "c1ccc2ccccc2c1":
        [(_, bonds)] = read_graphs([smiles])
        growth = Growth(1, len(bonds))
        closed = []
        for i in range(len(bonds)):
            earlier = bonds[None, i, :i]
            closed += [growth.ring(earlier[:, :k]).item() for k in earlier[0].nonzero()[0]]
            growth.add(earlier)
        expected = np.minimum(shortest_path(bonds, unweighted=True), FAR)
        np.testing.assert_array_equal(growth.distance[0], expected)
        sizes = [size for size in closed if size]
        molecule = Chem.MolFromSmiles(smiles)
        assert sorted(sizes) == sorted(map(len, molecule.GetRingInfo().AtomRings()))


def log_probs_of_all(head, outputs, allowed):
    """Return the log-probability of every value, -inf for others than the allowed ones."""
    n, n_values = allowed.shape
    values = torch.arange(n_values).expand(n, -1)
    columns = [head.log_probs(outputs, column, allowed) for column in values.T]
    return torch.stack(columns, 1).where(allowed, -torch.inf)


def test_probabilities_of_the_flow_are_those_of_its_draws():
    from skflows.graphs._heads import NormalFlow

    head, generator = NormalFlow(), torch.Generator().manual_seed(0)
    outputs = torch.randn(300, 8, dtype=torch.float64, generator=generator)
    outputs[2, 4:] = torch.tensor([9.0, -9.0, 0.0, -9.0])  # the largest and the smallest scales
    allowed = torch.rand(300, 4, generator=generator) < 0.9
    allowed[:, 0] = True
    log_probs = log_probs_of_all(head, outputs, allowed)
    np.testing.assert_allclose(log_probs.exp().sum(1), 1.0, atol=1e-5)
    n = 20_000
    for row in range(3):
        rows = outputs[row].expand(n, -1), allowed[row].expand(n, -1)
        drawn = head.draw(*rows, 1.0, generator)
        frequencies = np.bincount(drawn, minlength=4) / n
        np.testing.assert_allclose(log_probs[row].exp(), frequencies, atol=0.015)


def test_samples_are_molecules(density):
    drawn = density.sample(100, random_state=0, temperature=1.0)
    assert len(drawn) == 100
    for smiles in drawn:
        molecule = Chem.MolFromSmiles(smiles)
        Chem.Kekulize(molecule, clearAromaticFlags=True)
        for atom in molecule.GetAtoms():
            number = density.atom_types_.index((atom.GetSymbol(), atom.GetFormalCharge()))
            used = sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
            assert used <= density.highest_valences_[number]
    unchecked = density.sample(100, random_state=0, check_valency=False, temperature=1.0)
    assert any(smiles is None for smiles in unchecked)
    again = density.sample(100, random_state=0, temperature=1.0)
    np.testing.assert_array_equal(drawn, again)


def test_samples_that_a_condition_accepts(density):
    def has_oxygen(smiles):
        return np.array(["O" in text for text in smiles])

    drawn, acceptance = density.sample(30, random_state=0, where=has_oxygen, return_acceptance=True)
    assert has_oxygen(drawn).all() and len(drawn) == 30 and 0 < acceptance < 1
    unchecked = density.sample(30, random_state=0, check_valency=False, where=has_oxygen)
    assert has_oxygen(unchecked).all()  # which fails for None
    with pytest.raises(ValueError, match="it must return a boolean for each"):
        density.sample(2, where=lambda smiles: [1.0])
    with pytest.raises(ValueError, match="where accepted none of"):
        density.sample(2, where=lambda smiles: np.zeros(len(smiles), dtype=bool))


def test_odd_molecules_are_outliers():
    chains = ["C" * n + end for n in range(2, 14) for end in ("O", "N", "", "C#N", "(=O)O")]
    density = small(max_iter=15, learning_rate_init=1e-2, contamination=0.05).fit(chains)
    np.testing.assert_array_equal(density.predict(["CCCCO", "C1CC2CC1CC2(C)C"]), [1, -1])
    assert (density.predict(chains) == -1).mean() == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    "rows, message",
    [
        ("CCO", "X is a single text"),
        ([], "with one row at least"),
        (["CCO", "C("], r"Row 1 of X, 'C\(', is no molecule .*: its syntax is wrong"),
        (["CCO", ""], "Row 1 of X, '', is no molecule .*: it has no atoms"),
        (["C=[N](C)(C)C", "CCO"], "Row 0 of X.*valence for atom # 1 N, 5, is greater than"),
        (["CCO", "c1cccc1C"], "Row 1 of X.*Can't kekulize"),
        (["CCO", None], "Row 1 of X is None"),
        (["CCO", 3.5], "Row 1 of X is 3.5"),
        (["CCO.Cl", "CCO"], "Row 0 of X, 'CCO.Cl', has several fragments"),
        (["CCO", "C[CH2]"], r"Row 1 of X, 'C\[CH2\]', has atoms or bonds that"),
        (["CCO", "[2H]C"], "Row 1 of X"),
        (["CCO", "[Rh]$[Rh]"], "bonds to metals"),
        (["CCO"], "at least 2 are needed"),
        (5, "X is 5; give a list"),
        (None, "X is None; give a list"),
        ({"a": 1}, r"X is \{'a': 1\}; give a list"),
        ([["C", "O"]], r"X has shape \(1, 2\)"),
    ],
)
def test_rows_that_are_no_molecules(rows, message):
    with pytest.raises(ValueError, match=message):
        small().fit(rows)


def test_other_errors(density):
    with pytest.raises(ValueError, match=r"Row 300 of .* an atom Si, .*fit has; those have C, Cl"):
        density.score_samples(["CC"] * 300 + ["C[SiH3]"])
    with pytest.raises(ValueError, match="hidden_size=12; it must be a multiple of 8"):
        small(hidden_size=12).fit(SMILES)
    with pytest.raises(ValueError, match="n_samples=0"):
        density.sample(0)
    with pytest.raises(ValueError, match="temperature=-1"):
        density.sample(1, temperature=-1)
    with pytest.raises(NotFittedError):
        small().sample()


def test_larger_molecules_than_in_fit_have_a_score(density):
    assert np.isfinite(density.score_samples(["C" * 60, "C1" + "C" * 30 + "1"])).all()
    lengths = np.array([60, 250, 300])
    per_atom = density.score_samples(["C" * int(n) for n in lengths]) / lengths
    np.testing.assert_allclose(per_atom, per_atom[0], rtol=0.2)


def test_columns_arrays_and_frames(density):
    pd = pytest.importorskip("pandas")
    scores = density.score_samples(SMILES)
    column = np.array(SMILES)[:, None]
    for X in np.array(SMILES), column, pd.Series(SMILES), pd.DataFrame({"smiles": SMILES}):
        np.testing.assert_array_equal(density.score_samples(X), scores)


def test_stored_models(density, tmp_path):
    density.save(tmp_path / "m.skflows")
    scores = density.score_samples(SMILES)
    for other in skflows.load(tmp_path / "m.skflows"), pickle.loads(pickle.dumps(density)):
        np.testing.assert_array_equal(other.score_samples(SMILES), scores)
        np.testing.assert_array_equal(
            other.sample(5, random_state=1), density.sample(5, random_state=1)
        )
    fitted = clone(density).fit(SMILES * 4)
    np.testing.assert_array_equal(fitted.score_samples(SMILES), scores)


def test_the_time_limit_counts_from_the_beginning(monkeypatch):
    from skflows.graphs import _density

    def slow(*args):
        time.sleep(0.5)
        return read(*args)

    read = _density.read_graphs
    monkeypatch.setattr(_density, "read_graphs", slow)
    with pytest.warns(UserWarning, match="ended training within its first epoch"):
        small(time_limit=0.5).fit(SMILES)


def test_training(capsys):
    limited = small(max_iter=10_000, time_limit=0.5, verbose=1).fit(SMILES)
    assert limited.n_iter_ < 10_000 and "Epoch 1/10000: loss" in capsys.readouterr().out
    begun = small(max_iter=1).fit(SMILES)
    better = small(max_iter=20, learning_rate_init=1e-2).fit(SMILES * 4)
    assert better.score(SMILES) > begun.score(SMILES) + 3
    scores = []

    def keep_score(epoch, fitted):
        scores.append(fitted.score(SMILES))

    small().set_callbacks(AtEpochEnd(keep_score)).fit(SMILES)
    assert len(scores) == 4 and scores[-1] != scores[0]


def test_steps_may_be_large_enough_for_several_threads():
    large = small(batch_size=10_000, max_iter=1).fit(SMILES)
    assert np.isfinite(large.score(SMILES))


def test_what_scikit_learn_checks_without_tables():
    check_without_tables(small())
    search = GridSearchCV(small(max_iter=1), {"n_layers": [1, 2]}, cv=2)
    assert search.fit(["CCO", "CCN", "OCCN"] * 4).best_score_ < 0
