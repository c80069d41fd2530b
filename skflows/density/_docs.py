"""The parts of the docstrings that all flows share."""

import inspect
import re
from ast import literal_eval

DEFAULT = re.compile(r"(?m)^(?P<start>(?P<name>\w+) : .*default=)(?P<default>.*)$")

NETWORK = """\
hidden_layer_sizes : int or tuple of int, default=(64, 64)
    Widths of the hidden layers of each conditioner network. A layer as wide as the one
    before it is residual.

activation : {"relu", "tanh", "silu", "gelu", "elu"}, default="relu"
    Activation of the hidden layers.

dropout : float, default=0.1
    Fraction of hidden units dropped in each training step, on a CPU to the nearest 1/256.
"""

PREPROCESSING = """\
preprocessing : {"standardize", "whiten", "quantile"} or sequence of them, default="standardize"
    Fixed maps that stand before the flow, as parts of the density: centre and scale each
    column; decorrelate all columns, with a Ledoit-Wolf covariance; or map each column to a
    normal one by its quantiles, its tails chosen by held-out likelihood. Of several, the
    first comes first.
"""

DATA = """\
bounds : array-like of shape (n_features, 2), or dict, default=None
    Lower and upper bound of each column, None where there is none, as in
    ``[(0, None), (None, None)]`` or, by number or name, ``{"age": (0, None)}``. The density
    is 0 outside, and samples never leave them.

discrete : "auto", None, array-like of int or str, or dict, default="auto"
    Columns of discrete values, by number or name; a dict gives the distance between their
    values, which is else the smallest gap that occurs (1 in a constant column). They are
    spread by uniform noise over this width, drawn anew in each epoch; scores are means of
    the density over 8 fixed draws of it, hence probabilities of a cell divided by its width;
    samples are rounded back. "auto" finds constant columns and, in tables of 40 rows or more,
    those with fewer than half of their values distinct.
"""

TRAINING = """\
input_noise : float or "auto", default=0.0
    Standard deviation of the normal noise added to the preprocessed rows in each epoch, a
    regulariser for small tables. "auto" trains with 0, 0.05, 0.1 and 0.2 together and keeps
    the flow that does best on the held-out rows, where there are any.

batch_size : int or "auto", default="auto"
    Most rows of a training step; an epoch has as few steps as that allows, of nearly the same
    size. A multiple of 16 is best. "auto" takes about 1/32 of the rows, between 128 and 1024.
    Tables of fewer than 40 rows are then trained whole: in float64, with nothing held out,
    shuffled or dropped, so that weighting a row by 2 and repeating it give the same fit, but
    for the noise of ``input_noise`` and on discrete columns, which each row has of its own. Their
    peak rate falls with the number of columns beyond 4.

learning_rate_init : float, default=0.002
    Peak learning rate of AdamW; it rises over the first 5 % of the steps and falls along
    a cosine to 0 at ``max_iter``.

weight_decay : float, default=0.0
    Decoupled weight decay.

max_iter : int, default=100
    Largest number of epochs.

time_limit : float, default=None
    Seconds from the start of `fit` to the end of training: the learning rate falls to 0 by
    then. The checks that follow do not count.

early_stopping : bool or "auto", default="auto"
    Whether to hold out ``validation_fraction`` of the rows, keep the epoch that does best
    on them and stop when they no longer improve. "auto" does so from 40 rows on.

validation_fraction : float, default=0.1
    Fraction of the rows held out.

n_iter_no_change : int, default=20
    Epochs without improvement on the held-out rows after which training stops.

tol : float, default=1e-4
    Least improvement, in nats per row, that counts as one.

warm_start : bool, default=False
    Whether `fit` starts from the weights, scaling and architecture of the previous call.

contamination : float, "auto" or None, default="auto"
    Fraction of outliers in the training data, which sets the threshold of `predict`.
    "auto" puts it at the lower Tukey fence of the training scores, Q1 - 1.5 (Q3 - Q1).
    None sets none, and spares the time to find it: `predict` calls no row an outlier.

device : str, default="auto"
    A torch device. "auto" is CUDA where there is one, else the CPU; "mps" must be asked
    for.

compile : bool, default=False
    Whether to compile losses and their gradients for the shapes of the table, by
    `torch.compile`. It needs a C++ compiler and takes up to a minute, so it pays in fits of
    several minutes, if at all: with the extension most steps take less time as they are, and
    those of splines are never compiled. Batches are of one size, which leaves out some rows in
    each epoch, others each time; torch compiles eight shapes in a process and takes later ones
    as they are. Flows that train together, as in a search for `input_noise`, are not compiled.

random_state : int, RandomState instance or None, default=None
    Seeds the initial weights, the held-out rows, the order of the rows and dropout.

verbose : int, default=0
    Print the loss every ``verbose`` epochs.
"""

TRAINED = """\
input_noise_ : float
    The input noise of the training, of which "auto" chose the best.
"""

ATTRIBUTES = """\
flow_ : torch.nn.Module
    The fitted flow, in float64; it is on the CPU after loading or copying the estimator.

history_ : dict of list
    "loss" (training negative log-likelihood per row, the mean over an epoch, in nats),
    "validation_score" (mean held-out log-density; nan where no rows were held out) and
    "learning_rate", one entry per epoch.

n_iter_ : int
    Number of epochs run, over all calls that went on from one another.

best_iter_ : int
    Epoch, counted from 1, whose weights were kept; 0 for those the training started from.

best_validation_score_ : float or None
    Mean held-out log-density of these weights, if rows were held out.

offset_ : float
    Log-density below which `predict` calls a row an outlier.

discrete_ : dict of int to float
    The discrete columns and the width of their cells.

n_features_in_ : int
    Number of columns seen in `fit`.

feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Column names seen in `fit`, if they are all strings.
"""


MIXTURE = """\
weights_ : ndarray of shape (n_components,)
    Weight of each component in the mixture.

component_names_ : list of str
    Names of the components, in the order of ``weights_`` and ``estimators_``.

estimators_ : list of list of estimator
    The fitted members of each component: one for each fold, or a single one that was fitted
    again to all rows; none where the weight is 0.

leaderboard_ : dict of list
    One entry per component, the heaviest first: "component", "weight", "score" (its mean
    log-density of held-out rows, in nats) and "seconds". Ready for `pandas.DataFrame`.

held_out_scores_ : ndarray of shape (n_samples,)
    Log-density of each row of `fit` under the mixture of the models that had not seen it, nan
    for rows that were never held out. Rows below `offset_` are the outliers of the table.

stacked_score_ : float
    Mean of these scores.

offset_ : float
    Log-density below which `predict` calls a row an outlier.

n_features_in_ : int
    Number of columns seen in `fit`.

feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Column names seen in `fit`, if they are all strings.
"""

PARTS = {
    "network": NETWORK,
    "preprocessing": PREPROCESSING,
    "data": DATA,
    "training": TRAINING,
    "trained": TRAINED,
    "attributes": ATTRIBUTES,
    "mixture": MIXTURE,
}


def fill(docstring, parameters=None):
    """Put the shared parts in place of their names in braces, with the defaults of a signature."""
    docstring = inspect.cleandoc(docstring)
    for name, shared in PARTS.items():
        docstring = docstring.replace(f"{{{name}}}", shared.rstrip())

    if parameters is None:
        return docstring

    def with_own_default(match):
        own = parameters[match["name"]].default
        if literal_eval(match["default"]) == own:
            return match[0]
        written = f'"{own}"' if isinstance(own, str) else repr(own)
        return match["start"] + written

    return DEFAULT.sub(with_own_default, docstring)
