"""Parts of the docstrings that estimators share."""

import inspect
import re
from ast import literal_eval

DEFAULT = re.compile(r"(?m)^(?P<start>(?P<name>\w+) : .*default=)(?P<default>.*)$")

NETWORK = """\
hidden_layer_sizes : int or tuple of int, default=(64, 64)
    Widths of the hidden layers of each conditioner network. A layer as wide as the one
    before it is residual.

dropout : float, default=0.1
    Fraction of hidden units dropped in each training step, rounded to 1/256 on a CPU.
"""

PREPROCESSING = """\
preprocessing : {"quantile", "standardize", "whiten"} or sequence of them, default="quantile"
    Fixed transforms applied before the flow; they are part of the density. "quantile" maps each
    column to a standard normal through its quantiles, with tails chosen by held-out
    likelihood; "standardize" centres and scales each column; "whiten" decorrelates all
    columns, with a Ledoit-Wolf covariance. A sequence is applied in its order.
"""

DATA = """\
bounds : array-like of shape (n_features, 2), or dict, default=None
    Lower and upper bound of each column, None where there is none, as in
    ``[(0, None), (None, None)]`` or, by index or name, ``{"age": (0, None)}``. The density
    is 0 outside, and samples never leave the bounds.

discrete : "auto", None, array-like of int or str, or dict, default="auto"
    Columns of discrete values, by index or name; a dict gives the distance between their
    values, which otherwise is the smallest gap (1 in a constant column). Samples are rounded
    to values of this distance; to the values seen if a dict says "seen" in place of a
    distance or, without a dict, if each value occurs in five rows on average and at most 0.2 %
    of the rows have a value of their own. "auto" chooses the columns whose values are, or differ
    by, whole numbers, and those in which two random rows have the same value with a probability
    of 10 % or more. Training adds uniform noise of this width, drawn anew in each epoch. Scores
    are the log-probability of the cell around a row, divided by its width: the density is
    averaged over two points of the cell.
"""

CONTAMINATION = """\
contamination : float, "auto" or None, default="auto"
    Fraction of outliers in the training data, which sets the threshold of `predict`.
    "auto" puts it at the lower Tukey fence of the {scores} scores, Q1 - 1.5 (Q3 - Q1). None
    sets no threshold, which saves time: `predict` then labels every row an inlier.
"""

TRAINING = """\
input_noise : float or "auto", default=0.0
    Standard deviation of the normal noise added to the preprocessed rows in each epoch, which
    regularises small tables. "auto" trains with 0, 0.05, 0.1 and 0.2 together and keeps the
    flow with the best validation score, if rows are held out.

batch_size : int or "auto", default="auto"
    Largest number of rows of a training step; an epoch has as few steps as that allows, of
    nearly the same size. Multiples of 16 are best. "auto" takes about 1/32 of the rows,
    between 128 and 1024. Tables of fewer than 40 rows are then trained as one batch: in
    float64, without held-out rows, shuffling or dropout, so that a row of weight 2 counts
    like a repeated row (except for the noise of ``input_noise`` and on discrete columns,
    which is drawn for each row). Their peak rate falls with the number of columns beyond 4.

learning_rate_init : float, default=0.002
    Peak learning rate of AdamW; it rises over the first 5 % of the steps and falls along
    a cosine to 0 at ``max_iter``.

weight_decay : float, default=0.0
    Decoupled weight decay.

max_iter : int, default=100
    Maximum number of epochs.

time_limit : float, default=None
    Seconds from the start of `fit` to the end of training: the learning rate falls to 0 by
    then. Scoring the training rows afterwards does not count.

early_stopping : bool or "auto", default="auto"
    Whether to hold out ``validation_fraction`` of the rows, keep the epoch with the best
    score on them and stop when it no longer improves. "auto" does so from 40 rows on.

validation_fraction : float, default=0.1
    Fraction of the rows held out.

n_iter_no_change : int, default=20
    Epochs without improvement on the held-out rows after which training stops.

tol : float, default=1e-4
    Minimum improvement, in nats per row, to reset the patience.

warm_start : bool, default=False
    Whether `fit` starts from the weights, scaling and architecture of the previous call.

{contamination}

device : str, default="auto"
    A torch device. "auto" is CUDA if available, otherwise the CPU; "mps" must be requested.

random_state : int, RandomState instance or None, default=None
    Seeds the initial weights, the held-out rows, the order of the rows and dropout.

verbose : "auto" or int, default="auto"
    "auto" prints at a terminal or in a notebook how far a fit of more than ten seconds is. 0 and
    False print nothing, and other numbers the loss every ``verbose`` epochs.
"""

OBJECT_TRAINING = """\
batch_size : int, default=32
    Number of {objects} in a training step.

learning_rate_init : float, default=0.002
    Peak learning rate of AdamW.

max_iter : int, default=100
    Largest number of epochs.

time_limit : float, default=None
    Seconds after which training ends; None for no limit.

validation_fraction : float, default=0.1
    Fraction of the {objects} to hold out; they choose the best epoch.

n_iter_no_change : int, default=50
    Epochs without a gain on them after which training ends.

{contamination}

random_state : int, RandomState instance or None, default=None
    Seed of the weights, the held-out {objects} and the draws of the training.

verbose : "auto" or int, default="auto"
    "auto" prints at a terminal or in a notebook how far a fit of more than ten seconds is. 0 and
    False print nothing, and other numbers the loss every ``verbose`` epochs.
"""

OBJECT_TRAINED = """\
n_iter_ : int
    Number of epochs.

best_iter_ : int
    Epoch, counted from 1, whose weights were kept.

best_validation_score_ : float
    Its ``validation_score``.
"""

TRAINED = """\
input_noise_ : float
    The input noise of the training.
"""

ATTRIBUTES = """\
flow_ : torch.nn.Module
    The fitted flow, in float64; it is on the CPU after loading or copying the estimator.

history_ : dict of list
    "loss" (training negative log-likelihood per row, averaged over an epoch, in nats),
    "validation_score" (mean held-out log-density; NaN if no rows were held out) and
    "learning_rate", one entry per epoch.

n_iter_ : int
    Number of epochs, over all calls that continued one another.

best_iter_ : int
    Epoch, counted from 1, whose weights were kept; 0 for the initial weights.

best_validation_score_ : float or None
    Mean held-out log-density of these weights, if rows were held out.

offset_ : float
    Log-density below which `predict` labels a row an outlier.

discrete_ : dict
    The discrete columns, by name or else by index, and the distance between their values.

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
    The fitted members of each component: one for each fold, or a single one that was refitted
    to all rows; none if the weight is 0.

leaderboard_ : dict of list
    One entry per component, by decreasing weight: "component", "weight", "score" (its mean
    log-density of held-out rows, in nats) and "seconds". `pandas.DataFrame` takes it.

held_out_scores_ : ndarray of shape (n_samples,)
    Log-density of each row of `fit` under the mixture of the models that had not seen it, NaN
    for rows that were never held out. Rows below `offset_` are the outliers of the table.

stacked_score_ : float
    Mean of these scores.

offset_ : float
    Log-density below which `predict` labels a row an outlier.

n_features_in_ : int
    Number of columns seen in `fit`.

feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Column names seen in `fit`, if they are all strings.
"""

TRAINING_CONTAMINATION = CONTAMINATION.format(scores="training")
HELD_OUT_CONTAMINATION = """\
contamination : float, "auto" or None, default="auto"
    Fraction of outliers in the training data, which sets the threshold of `predict`: the quantile
    of the training scores or, if that would flag many more of the rows that were held out, the
    quantile of the held-out scores (`fit_predict` then labels rows by these). "auto" puts it at the
    lower Tukey fence of the held-out scores, Q1 - 1.5 (Q3 - Q1). None sets no threshold:
    `predict` then labels every row an inlier.
"""
VERBOSE = """\
verbose : "auto" or int, default="auto"
    "auto" prints now and then how far a fit of more than ten seconds is, and before it, if that is
    known, how long it takes: on stderr if that is a terminal or a notebook, and not for one of
    several fits of an estimator with callbacks, such as a search, nor in another thread or process
    (scikit-learn 1.9 or newer). 0 and False print nothing, and other numbers the held-out score of
    each component when it is known.
    For a progress bar, use ``set_callbacks(sklearn.callback.ProgressBar())``.
"""

# Name in braces in a docstring: the text that replaces it. Parts may contain later ones.
PARTS = {
    "network": NETWORK,
    "preprocessing": PREPROCESSING,
    "data": DATA,
    "training": TRAINING,
    "clouds_training": OBJECT_TRAINING.replace("{objects}", "clouds"),
    "molecules_training": OBJECT_TRAINING.replace("{objects}", "molecules"),
    "object_trained": OBJECT_TRAINED,
    "contamination": TRAINING_CONTAMINATION,
    "held_out_contamination": HELD_OUT_CONTAMINATION,
    "trained": TRAINED,
    "attributes": ATTRIBUTES,
    "mixture": MIXTURE,
    "mixture_verbose": VERBOSE,
}


def fill(docstring, parameters=None):
    """Replace names in braces by the shared parts, with the defaults of a signature."""

    def with_own_default(match):
        if match["name"] not in (parameters or {}):
            return match[0]
        default = parameters[match["name"]].default
        if literal_eval(match["default"]) == default:
            return match[0]
        written = f'"{default}"' if isinstance(default, str) else repr(default)
        return match["start"] + written

    docstring = inspect.cleandoc(docstring)
    for name, shared in PARTS.items():
        shared = DEFAULT.sub(with_own_default, shared.rstrip())
        docstring = docstring.replace(f"{{{name}}}", shared)
    return docstring
