"""GraphAF: the density of molecules, grown atom by atom."""

import copy
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..callbacks._run import clock
from ..columns.arrays import check_integer, checked_number
from ..columns.types import Floats, RandomState
from ..density._objects import ObjectDensity
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ..training.threads import fit_context
from ._molecules import read_graphs, smiles_of

DRAWN_AT_ONCE = 250
LARGER_THAN_SEEN = 1.25  # samples have at most this times the atoms of the largest molecule of fit
PATIENCE_OF_WHERE = 3000  # draws without one that `where` accepts


class MoleculeDensity(ObjectDensity):
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
        paper but trained without noise, or plain probabilities. Both fit about as well in equal
        time.

    hidden_size : int, default=128
        Size of the hidden layers, a multiple of 8.

    n_layers : int, default=4
        Number of layers of attention.

    {molecules_training}

    Attributes
    ----------
    atom_types_ : list of tuple
        Symbol and charge of each type of atom.

    highest_valences_ : ndarray of shape (n_types,)
        Largest sum of the orders of an atom's bonds in `fit`, for each type; hydrogen is left out.

    largest_ : int
        Number of atoms of the largest molecule of `fit`.

    history_ : dict of list
        ``loss``, ``validation_score`` (the mean score of held-out molecules) and ``learning_rate``
        of each epoch.

    {object_trained}

    offset_ : float
        Outlier threshold for `score_samples`.

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

    _n_of_fence = 1000
    _parameter_constraints: dict = {
        **ObjectDensity._parameter_constraints,
        "head": [StrOptions({"flow", "categorical"})],
        "hidden_size": [Interval(Integral, 8, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        head="flow",
        hidden_size=128,
        n_layers=4,
        batch_size=128,
        learning_rate_init=2e-3,
        max_iter=20,
        time_limit=None,
        validation_fraction=0.05,
        n_iter_no_change=5,
        contamination="auto",
        random_state=None,
        verbose="auto",
    ):
        self.head = head
        self.hidden_size = hidden_size
        self.n_layers = n_layers
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
        graphs = read_graphs(X)
        from ._heads import HEADS
        from ._network import GrowthLikelihood, GrowthNetwork, arranged

        used: dict[tuple, int] = {}
        for atoms, bonds in graphs:
            for atom, total in zip(atoms, bonds.sum(axis=1).tolist(), strict=True):
                used[atom] = max(used.get(atom, 0), total)
        self.atom_types_ = sorted(used)
        self.highest_valences_ = np.array([used[atom] for atom in self.atom_types_])
        self.largest_ = max(len(atoms) for atoms, _ in graphs)
        molecules = arranged(graphs, self.atom_types_)

        def build():
            sizes = len(self.atom_types_), self.hidden_size, self.n_layers
            return GrowthNetwork(HEADS[self.head](), *sizes), GrowthLikelihood(molecules)

        self._train(X, graphs, build, started=started)
        return self

    def _scores_of(self, network, graphs):
        return network.of_graphs("log_probs", graphs, self.atom_types_)

    def _of_rows(self, method, X):
        """Return what a method of the network returns for SMILES."""
        check_is_fitted(self)
        return self.network_.of_graphs(method, read_graphs(X, self.atom_types_), self.atom_types_)

    def score_samples(self, X: ArrayLike) -> Floats:
        """Return the log-probability of growing each molecule.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, 1)
            SMILES. Different SMILES of a molecule have the same score.

        Returns
        -------
        log_probability : ndarray of shape (n_samples,)
            In nats, of growing the atoms in canonical breadth-first order: a lower bound of the
            log-probability of the molecule, which other orders give too.
        """
        return self._of_rows("log_probs", X)

    def transform(self, X: ArrayLike) -> Floats:
        """Return what the network makes of each molecule: features for other estimators.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, 1)
            SMILES.

        Returns
        -------
        features : ndarray of shape (n_samples, hidden_size)
            Mean of the last hidden layer over the atoms.
        """
        return self._of_rows("mean_states", X)

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
        temperature = checked_number("temperature", temperature)
        rng = check_random_state(random_state)
        network = copy.deepcopy(self.network_).float()  # draws in two thirds of the time
        kept: list = []
        n_drawn = 0
        while len(kept) < n_samples:
            # As many as are likely to leave enough.
            share = max(len(kept), 1) / max(n_drawn, 1)
            wanted = min(DRAWN_AT_ONCE, int(np.ceil((n_samples - len(kept)) / share)))
            drawn = self._drawn(network, wanted, rng, check_valency, temperature)
            n_drawn += wanted
            if check_valency or where is not None:
                drawn = drawn[drawn != None]  # noqa: E711
            if where is not None:
                mask = np.asarray(where(drawn))
                if mask.shape != drawn.shape or mask.dtype != bool:
                    raise ValueError(
                        f"where returned {mask.dtype} values of shape {mask.shape}; it must return "
                        f"a boolean for each of {len(drawn)} molecules."
                    )
                drawn = drawn[mask]
            kept.extend(drawn)
            if not kept and n_drawn >= PATIENCE_OF_WHERE:
                raise ValueError(
                    f"where accepted none of {n_drawn} draws: loosen where, raise "
                    "temperature, or fit molecules that it accepts."
                )
        smiles = np.array(kept[:n_samples], dtype=object)
        return (smiles, len(kept) / n_drawn) if return_acceptance else smiles

    def _drawn(self, network, n, rng, check_valency, temperature):
        """Return drawn SMILES; those that RDKit refuses are None."""
        import torch

        generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
        valences = self.highest_valences_ if check_valency else None
        size = int(np.ceil(LARGER_THAN_SEEN * self.largest_))
        types, bonds = network.grow(n, size, temperature, valences, generator)
        atoms = [[self.atom_types_[number] for number in row[row >= 0]] for row in types]
        return np.array([*map(smiles_of, atoms, bonds)], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
