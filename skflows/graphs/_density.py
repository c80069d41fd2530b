"""GraphAF: the density of molecules, grown atom by atom."""

import copy
from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..calibration.thresholds import by_contamination
from ..callbacks._run import clock, fit_task, random_state_of, training_file
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import check_integer
from ..columns.types import Floats, RandomState
from ..density._outlier_labels import OutlierDensityMixin
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ..training.threads import fit_context
from ._growth import history
from ._molecules import atoms_and_bonds, breadth_first, read_smiles, rebuilt, table_of

SCORED_AT_ONCE = 256  # molecules
DRAWN_AT_ONCE = 1000
LARGER_THAN_SEEN = 1.25  # samples have at most this times the atoms of the largest molecule of fit
PATIENCE_OF_WHERE = 3000  # draws without one that `where` accepts


class MoleculeDensity(OutlierDensityMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator):
    """Density of molecules by GraphAF: atoms one after another, each with its bonds.

    A row is a molecule, written as SMILES. Its atoms come in breadth-first order from the first
    atom of RDKit's canonical SMILES. A network that attends to the atoms so far, by their distance
    in bonds, gives the distribution of the next atom's type, and then of its bond to each earlier
    atom that may have one. All steps of a molecule are trained in one pass. It needs
    RDKit: ``pip install rdkit``.

    Parameters
    ----------
    head : {"flow", "categorical"}, default="flow"
        The family of these distributions: an affine flow of indicators of the values, as in the
        paper but trained without noise, or plain probabilities.

    hidden_size : int, default=128
        Size of the hidden layers, a multiple of 8.

    n_layers : int, default=4
        Number of layers of attention.

    dropout : float, default=0.0
        Probability that a hidden unit is dropped in training.

    n_orders : int, default=1
        Number of breadth-first orders of each molecule. 1 for the canonical one; more for as many
        random ones, over which scores are averaged.

    batch_size : int, default=128
        Number of molecules in a step.

    learning_rate_init : float, default=2e-3
        Peak rate of AdamW.

    max_iter : int, default=20
        Largest number of epochs.

    time_limit : float, default=None
        Seconds after which the training ends; None for no limit.

    validation_fraction : float, default=0.05
        Fraction of the molecules to hold out; they choose the best epoch.

    n_iter_no_change : int, default=5
        Epochs without a gain on them after which the training ends.

    contamination : "auto", float or None, default="auto"
        Fraction of the molecules of `fit` that `predict` labels as outliers; "auto" for a fence
        below the quartiles of their scores, None for no threshold.

    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the orders and the held-out molecules.

    verbose : int, default=0
        Print progress every ``verbose`` epochs.

    Attributes
    ----------
    atom_types_ : list of tuple
        Symbol and charge of each type of atom.

    highest_valences_ : ndarray of shape (n_types,)
        Largest sum of the orders of an atom's bonds in `fit`, for each type; hydrogen is left out.

    largest_ : int
        Number of atoms of the largest molecule of `fit`.

    history_ : dict of list
        ``loss``, ``validation_score`` and ``learning_rate`` of each epoch.

    n_iter_ : int
        Number of epochs.

    offset_ : float
        Outlier threshold for `score_samples`.

    Notes
    -----
    `score_samples` is the log-probability of one way to grow a molecule, and so a lower bound of
    the log-probability of the molecule. With ``head="flow"`` it is computed without noise, by an
    integral for each step.

    References
    ----------
    Shi et al., "GraphAF: a Flow-based Autoregressive Model for Molecular Graph Generation", 2020.

    Examples
    --------
    >>> from skflows.graphs import MoleculeDensity
    >>> smiles = ["CCO", "CCN", "CCCO", "CC(C)O", "c1ccccc1", "Cc1ccccc1", "CC(=O)O", "CCC#N"]
    >>> density = MoleculeDensity(hidden_size=16, n_layers=1, max_iter=3, random_state=0)
    >>> density = density.fit(smiles)
    >>> density.score_samples(["OCC", "CCO"]).shape
    (2,)
    >>> len(density.sample(4, random_state=0))
    4
    """

    _parameter_constraints: dict = {
        "head": [StrOptions({"flow", "categorical"})],
        "hidden_size": [Interval(Integral, 8, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "n_orders": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        head="flow",
        hidden_size=128,
        n_layers=4,
        dropout=0.0,
        n_orders=1,
        batch_size=128,
        learning_rate_init=2e-3,
        max_iter=20,
        time_limit=None,
        validation_fraction=0.05,
        n_iter_no_change=5,
        contamination="auto",
        random_state=None,
        verbose=0,
    ):
        self.head = head
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.dropout = dropout
        self.n_orders = n_orders
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.contamination = contamination
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the density to molecules.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, 1)
            SMILES of the molecules, two at least.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        started = clock()
        if self.hidden_size % 8:
            raise ValueError(f"hidden_size={self.hidden_size}; it must be a multiple of 8.")
        molecules = read_smiles(X)
        if len(molecules) < 2:
            raise ValueError(f"X has {len(molecules)} molecule; at least 2 are needed.")
        random_state = random_state_of(self)
        graphs = [atoms_and_bonds(m, range(m.GetNumAtoms())) for m in molecules]
        used: dict[tuple, int] = {}
        for atoms, bonds in graphs:
            for atom, total in zip(atoms, bonds.sum(axis=1).tolist(), strict=True):
                used[atom] = max(used.get(atom, 0), total)
        self.atom_types_ = sorted(used)
        self.highest_valences_ = np.array([used[atom] for atom in self.atom_types_])
        self.largest_ = max(len(atoms) for atoms, _ in graphs)
        with fit_task(self, X, y, max_subtasks=self.max_iter) as task:
            self._train(molecules, random_state, started, task)
        return self

    def _fitted(self, network, molecules):
        """Return the attributes of a fitted density, from the network as it is now."""
        network = copy.deepcopy(network).double().eval().requires_grad_(False)
        offset = -np.inf
        if self.contamination is not None:
            scores = self._scores_by_order(network, molecules).mean(axis=1)
            offset = by_contamination(self.contamination, scores, np.ones(len(scores)))
        return {"network_": network, "offset_": offset}

    def _arranged(self, molecules):
        """Return the `Molecules` of the network, in all orders."""
        import torch

        from ._network import Molecules

        seeds = [None] if self.n_orders == 1 else range(self.n_orders)
        orders = [breadth_first(molecule, seed) for molecule in molecules for seed in seeds]
        repeated = [molecule for molecule in molecules for _ in seeds]
        types, bonds = table_of(repeated, orders, self.atom_types_)
        return Molecules(*map(torch.from_numpy, (types, bonds, *history(bonds))))

    def _train(self, molecules, random_state, started, task):
        """Train the network; held-out molecules choose the best epoch."""
        import torch

        from ..training import trainer
        from ..training.optimizer import limited
        from ..training.torch_state import gradients_enabled, torch_seed
        from ._heads import HEADS
        from ._network import GrowthLikelihood, GrowthNetwork

        n = len(molecules)
        order = random_state.permutation(n)
        arranged = self._arranged(molecules)
        numbers = np.arange(n * self.n_orders, dtype=float).reshape(n, -1)  # of orders
        n_held_out = min(max(1, round(self.validation_fraction * n)), n - 1)
        parts = order[n_held_out:], order[:n_held_out]
        rows = [torch.from_numpy(numbers[part].reshape(-1, 1)) for part in parts]
        seed = random_state.randint(2**31 - 1)
        with torch_seed(seed, torch.device("cpu")):
            network = GrowthNetwork(
                len(self.atom_types_),
                HEADS[self.head](),
                self.hidden_size,
                self.n_layers,
                self.dropout,
            )

        def on_epoch_end(progress):
            progress.print_epoch(self.max_iter, self.verbose)
            return task.end(partial(self._fitted, network, molecules))

        with gradients_enabled():
            result = trainer.train_in_phases(
                [{"max_iter": self.max_iter}],
                network,
                *(trainer.Rows(y, torch.ones(len(y))) for y in rows),
                batch_size=self.batch_size,
                learning_rate=self.learning_rate_init,
                n_iter_no_change=self.n_iter_no_change,
                schedule=limited(self.time_limit, started),
                generators=[torch.Generator().manual_seed(seed)],
                objective=GrowthLikelihood(arranged),
                on_epoch_begin=partial(task.begin, "epoch"),
                on_epoch_end=on_epoch_end,
                file=training_file(self, seed, *(tensor.numpy() for tensor in arranged)),
            )
        for name, value in self._fitted(network, molecules).items():
            setattr(self, name, value)
        self.history_ = {
            "loss": result.loss,
            "validation_score": result.validation_score,
            "learning_rate": result.learning_rate,
        }
        self.n_iter_ = len(result.loss)

    def score_samples(self, X: ArrayLike, *, return_std: bool = False) -> Any:
        """Return the log-probability of growing each molecule.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, 1)
            SMILES. Different SMILES of a molecule have the same score.

        return_std : bool, default=False
            Return the standard error over the orders too.

        Returns
        -------
        log_probability : ndarray of shape (n_samples,)
            In nats: of growing the atoms in canonical breadth-first order, or the mean over
            ``n_orders`` random orders.

        standard_error : ndarray of shape (n_samples,)
            Standard error of the mean over orders; NaN with one order. Only if ``return_std`` is
            true.
        """
        check_is_fitted(self)
        scores = self._scores_by_order(self.network_, read_smiles(X))
        mean = scores.mean(axis=1)
        if not return_std:
            return mean
        if self.n_orders == 1:
            return mean, np.full(len(mean), np.nan)
        return mean, scores.std(axis=1, ddof=1) / np.sqrt(self.n_orders)

    def _scores_by_order(self, network, molecules):
        """Return the log-probabilities ``(n_samples, n_orders)``."""
        from ._network import log_probs

        return self._by_order(log_probs, network, molecules)

    def _by_order(self, function, network, molecules):
        """Return what a function of a network and `Molecules` returns, for each order of each."""
        at_once = max(1, SCORED_AT_ONCE // self.n_orders)
        values = np.concatenate(
            [
                function(network, self._arranged(molecules[i : i + at_once]))
                for i in range(0, len(molecules), at_once)
            ]
        )
        return values.reshape(len(molecules), self.n_orders, *values.shape[1:])

    def transform(self, X: ArrayLike) -> Floats:
        """Return what the network makes of each molecule: features for other estimators.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, 1)
            SMILES.

        Returns
        -------
        features : ndarray of shape (n_samples, hidden_size)
            Mean of the last hidden layer over the atoms, and over the orders.
        """
        from ._network import mean_states

        check_is_fitted(self)
        return self._by_order(mean_states, self.network_, read_smiles(X)).mean(axis=1)

    def sample(
        self,
        n_samples: int = 1,
        random_state: RandomState = None,
        *,
        check_valency: bool = True,
        temperature: float = 0.75,
        where: Any = None,
        return_acceptance: bool = False,
    ) -> Any:
        """Draw molecules.

        Parameters
        ----------
        n_samples : int, default=1
            Number of molecules.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        check_valency : bool, default=True
            Whether an atom gets no more bonds than atoms of its type have in `fit`; molecules that
            RDKit refuses even so are drawn again. Without it, they are None.

        temperature : float, default=0.75
            Scale of the latent noise. 1 draws from the density; less gives likelier molecules,
            which differ less.

        where : callable, default=None
            ``where(smiles)`` returns a mask of the molecules to keep, out of an array of valid
            SMILES; others are drawn again.

        return_acceptance : bool, default=False
            Return the share of draws that ``where`` accepted too.

        Returns
        -------
        smiles : ndarray of shape (n_samples,) of str
            Canonical SMILES.

        acceptance : float
            Only if ``return_acceptance`` is true.
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples)
        if not isinstance(temperature, Real) or not 0 < float(temperature) < np.inf:
            raise ValueError(f"temperature={temperature!r}; it must be a positive number.")
        rng = check_random_state(random_state)
        kept, n_kept, n_drawn = [], 0, 0
        while n_kept < n_samples:
            # As many as are likely to leave enough.
            share = min(max(n_kept, 1) / max(n_drawn, 1), 1.0)
            wanted = min(DRAWN_AT_ONCE, int(np.ceil((n_samples - n_kept) / share)))
            drawn = self._drawn(wanted, rng, check_valency, temperature)
            n_drawn += len(drawn)
            if where is not None:
                drawn = np.array([text for text in drawn if text is not None], dtype=object)
                mask = np.asarray(where(drawn))
                if mask.shape != drawn.shape or mask.dtype != bool:
                    raise ValueError(
                        f"where returned {mask.dtype} values of shape {mask.shape}; it must return "
                        f"a boolean for each of {len(drawn)} molecules."
                    )
                drawn = drawn[mask]
            kept.append(drawn)
            n_kept += len(drawn)
            if not n_kept and n_drawn >= PATIENCE_OF_WHERE:
                raise ValueError(
                    f"where accepted none of {n_drawn} draws: loosen where, raise "
                    "temperature, or fit molecules that it accepts."
                )
        smiles = np.concatenate(kept)[:n_samples]
        return (smiles, n_kept / n_drawn) if return_acceptance else smiles

    def _drawn(self, n, rng, check_valency, temperature):
        """Return at most n drawn SMILES; invalid ones are None, or left out if valency counts."""
        import torch

        from ._network import grow

        generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
        valences = self.highest_valences_ if check_valency else None
        size = int(np.ceil(LARGER_THAN_SEEN * self.largest_))
        types, bonds = grow(self.network_, n, size, temperature, valences, generator)
        smiles = []
        for row, of_atoms in zip(types, bonds, strict=True):
            atoms = [self.atom_types_[number] for number in row[row >= 0]]
            smiles.append(rebuilt(atoms, of_atoms))
        if check_valency:
            smiles = [text for text in smiles if text is not None]
        return np.array(smiles, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
