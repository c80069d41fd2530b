"""Lossy and lossless compression: the quantised latent coordinates of a flow, range coded."""

import hashlib
import struct
import zlib
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted

from ..density._base import BaseFlowDensity
from ..density._third_party import fit_subtask, is_frozen
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.dequantizer import nearest_index
from ..preprocessing.sklearn_compat import HasMethods, Interval
from ..preprocessing.validation import prepare_table
from ..training.threads import fit_context

MAGIC, VERSION = b"SKFC", 2
# Magic, version, whether lossless, fingerprint, rows, columns, step, largest symbol.
HEADER = struct.Struct("<4sB?8sIIdI")
SECTION = struct.Struct("<I")  # bytes of what follows
RESIDUALS = struct.Struct("<i")  # the least residual
COARSEST = 4.0  # step at quality 0, in standard deviations of the latent space
HALVING = 10  # points of quality that halve the step
LEAST_SCALE = 0.01  # least standard deviation of the prior of a latent coordinate
LARGEST = 2**20  # symbol; only residuals make up for latent coordinates beyond


class FlowCompressor(PersistenceMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Compression of rows, such as images, by a flow.

    Rows are mapped to latent coordinates, which are rounded to multiples of a step and written by a
    range coder under a normal prior. A row that is probable under the flow thus takes few bytes.
    `decompress` maps the rounded coordinates back.

    The prior of the flow is a standard normal. That of the code has the standard deviation of each
    coordinate among the rows of `fit`, which is smaller if the flow was trained with noise that
    rows do not have: uniform noise of discrete columns, or ``input_noise``.

    Needs constriction (``pip install constriction``).

    Parameters
    ----------
    estimator : estimator
        A flow density that is exactly invertible, such as `GlowDensity` with an ``image_shape``; a
        fitted one as ``sklearn.frozen.FrozenEstimator(density)``. If it was trained with noise
        (``input_noise``), the latent space ignores smaller details, which makes files smaller.

    quality : float, default=50
        From 0 to 100. The step is ``4 * 2 ** (-quality / 10)`` standard deviations of the latent
        space.

    lossless : bool, default=False
        Whether to write the differences from the decompressed rows too, as numbers of values in
        between. All columns must be discrete. Values that did not occur in `fit` take up to 8 bytes
        more, once in each call.

    Attributes
    ----------
    estimator_ : estimator
        The fitted flow density.

    latent_scale_ : ndarray of shape (n_features,)
        Root mean square of the latent coordinates of the rows of `fit`, at least 0.01 and at most
        1: the standard deviations of the prior.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    Notes
    -----
    Decompress on a machine like the one that compressed, and with the same release of torch. In
    rare cases floating-point rounding differs, and `decompress` of lossless bytes then raises an
    error: don't use them as an archive. The checksum finds damage, not forgery: decompress only
    bytes that you trust.

    References
    ----------
    Helminger, Djelouah, Gross & Schroers, "Lossy Image Compression with Normalizing Flows", 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skflows import FlowCompressor, GlowDensity
    >>> X = load_digits().data
    >>> density = GlowDensity(
    ...     image_shape=(8, 8, 1), hidden_layer_sizes=8, n_transforms=1, max_iter=2, random_state=0
    ... )
    >>> compressor = FlowCompressor(density, lossless=True).fit(X[:200])
    >>> data = compressor.compress(X[200:210])
    >>> bool((compressor.decompress(data) == X[200:210]).all())
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "transform", "inverse_transform"])],
        "quality": [Interval(Real, 0, 100, closed="both")],
        "lossless": ["boolean"],
    }

    def __init__(self, estimator, *, quality=50, lossless=False):
        self.estimator = estimator
        self.quality = quality
        self.lossless = lossless

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the flow to the rows of X.

        A frozen flow stays as it is; the rows set the scales of the code.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted compressor.
        """
        import_constriction()
        frozen = is_frozen(self.estimator)
        flow = self.estimator.estimator if frozen else self.estimator
        if not isinstance(flow, BaseFlowDensity) or not flow._has_exact_inverse:
            raise TypeError(
                f"estimator is a {type(flow).__name__}; give a flow density with an exact inverse, "
                "such as GlowDensity."
            )
        if frozen:
            check_is_fitted(flow)
            latent = flow.transform(X)  # raises errors of X early
        if self.lossless:
            if frozen:
                dequantizer, d = flow._dequantizer, flow.n_features_in_
            else:
                table = prepare_table(clone(flow).set_params(verbose=0), X)
                dequantizer, d = table.dequantizer, table.X.shape[1]
            if (n_discrete := len(dequantizer.columns)) < d:
                raise ValueError(
                    f"lossless=True needs discrete columns, but {n_discrete} of {d} columns are: "
                    "give values that repeat, such as integers, or choose lossless=False."
                )
        context = self._init_callback_context(max_subtasks=0 if frozen else 1)
        task = {"estimator": self, "X": X, "y": y, "metadata": {}}
        context.call_on_fit_task_begin(**task)
        self.estimator_ = flow if frozen else fit_subtask(context, self, clone(flow), X)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        if not frozen:
            latent = self.estimator_.transform(X)
        mean_square = np.square(np.asarray(latent)).mean(axis=0)
        self.latent_scale_ = np.sqrt(mean_square).clip(LEAST_SCALE, 1.0)
        context.call_on_fit_task_end(**task, reconstruction_attributes=dict)
        return self

    def compress(self, X, quality=None):
        """Return rows as bytes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. Each call adds about 40 bytes of header and checksum, so compress many rows at
            once.

        quality : float, default=None
            That of the parameter ``quality``, if None.

        Returns
        -------
        data : bytes
            What `decompress` reads: a header with the version and a fingerprint of the compressor,
            the code, and a checksum.

        Raises
        ------
        ValueError
            If the quality is not between 0 and 100, or if a row is so improbable that its latent
            coordinates are out of range, unless it is compressed without loss.
        ImportError
            If `constriction` is not installed.
        """
        constriction = import_constriction()
        check_is_fitted(self)
        quality = self.quality if quality is None else quality
        if not (isinstance(quality, Real) and 0 <= quality <= 100):
            raise ValueError(f"quality={quality!r}; it must be a number from 0 to 100.")
        step = COARSEST * 2.0 ** (-quality / HALVING)
        steps = np.rint(np.asarray(self.estimator_.transform(X)) / step)
        in_range = np.abs(steps) <= LARGEST  # not if NaN
        if not (self.lossless or in_range.all()):
            raise ValueError(
                f"row {in_range.all(axis=1).argmin()} is too improbable for quality={quality:g}: "
                "lower the quality, or choose lossless=True."
            )
        symbols = np.nan_to_num(steps).clip(-LARGEST, LARGEST).astype(np.int32)
        largest = max(int(np.abs(symbols).max()), 1)
        code = encoded(
            constriction, symbols, *self._prior(constriction, len(symbols), step, largest)
        )
        parts = [
            HEADER.pack(
                MAGIC, VERSION, self.lossless, self._fingerprint(), *symbols.shape, step, largest
            ),
            code,
        ]
        if self.lossless:
            parts += self._residual_parts(constriction, X, symbols * step)
        data = b"".join(parts)
        return data + SECTION.pack(zlib.crc32(data))

    def decompress(self, data, *, rounded=True):
        """Return the rows that `compress` wrote.

        Parameters
        ----------
        data : bytes
            What `compress` returned.

        rounded : bool, default=True
            Whether to round discrete columns to their values. Rows that are not rounded compress
            to the same bytes again at the same quality. Rows compressed without loss are exact
            anyway.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows: exactly if they were compressed without loss, otherwise nearly so.

        Raises
        ------
        ValueError
            If the bytes are damaged, of another version, or written with another flow, or with one
            fitted to other rows.
        TypeError
            If data is not bytes.
        ImportError
            If `constriction` is not installed.
        """
        constriction = import_constriction()
        check_is_fitted(self)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is a {type(data).__name__}; give the bytes of compress.")
        data = bytes(data)
        if len(data) < HEADER.size + SECTION.size or data[: len(MAGIC)] != MAGIC:
            raise ValueError(
                "data is not the output of FlowCompressor.compress: it lacks the signature "
                f"{MAGIC}."
            )
        _, version, lossless, fingerprint, n, d, step, largest = HEADER.unpack_from(data)
        if version != VERSION:
            raise ValueError(
                f"data has version {version} of the format; this release of skflows reads version "
                f"{VERSION}."
            )
        body, (checksum,) = data[: -SECTION.size], SECTION.unpack(data[-SECTION.size :])
        if zlib.crc32(body) != checksum:
            raise ValueError("data is damaged: its checksum is not that of its content.")
        if fingerprint != self._fingerprint():
            raise ValueError(
                "data was written with another flow, or with one fitted to other rows: decompress "
                "it with the compressor that wrote it, saved by its method save."
            )
        reader = Reader(body, HEADER.size)
        prior = self._prior(constriction, n, step, largest)
        latent = decoded(constriction, reader, *prior).reshape(n, d) * step
        if not (lossless or rounded):
            return self.estimator_.inverse_transform(latent)
        rows = self._rows(latent)
        if not lossless:
            return self.estimator_._dequantizer.round(rows)
        unseen = np.frombuffer(zlib.decompress(reader.section()), dtype="<f8")
        least = reader.number(RESIDUALS)
        counts = np.frombuffer(zlib.decompress(reader.section()), dtype="<u4")
        model = histogram_model(constriction, counts)
        residuals = least + decoded(constriction, reader, model, n * d).reshape(n, d)
        exact = np.empty((n, d))
        for columns, grid in self._grids(unseen):
            exact[:, columns] = grid[nearest_index(grid, rows[:, columns]) + residuals[:, columns]]
        if zlib.crc32(exact) != reader.number(SECTION):
            raise ValueError(
                "the rows differ from those that were compressed: the flow rounds differently on "
                "this machine. Decompress them on one like that which compressed them."
            )
        return exact

    def _prior(self, constriction, n, step, largest):
        """Return the family of the symbols of n rows, their means and standard deviations."""
        scales = np.tile(self.latent_scale_ / step, n)
        family = constriction.stream.model.QuantizedGaussian(-largest, largest)
        return family, np.zeros(len(scales)), scales

    def _rows(self, latent):
        """Return rows for quantised latent coordinates, before discrete values are rounded."""
        return np.asarray(self.estimator_.inverse_transform(latent))

    def _residual_parts(self, constriction, X, latent):
        """Return the residuals of rows as bytes: values that are new, and what sets them apart from
        decompressed rows, in places of the sorted values."""
        X = np.asarray(X, dtype=np.float64).reshape(latent.shape)
        groups = self.estimator_._dequantizer.groups()
        unseen = np.unique(np.concatenate([np.setdiff1d(X[:, own], g) for own, g, _ in groups]))
        rows, exact = self._rows(latent), np.empty(latent.shape)
        residuals = np.empty(latent.shape, dtype=np.int32)
        for columns, grid in self._grids(unseen):
            places = np.searchsorted(grid, X[:, columns])
            residuals[:, columns] = places - nearest_index(grid, rows[:, columns])
            exact[:, columns] = grid[places]
        least = int(residuals.min())
        counts = np.bincount((residuals - least).ravel(), minlength=2).astype("<u4")
        code = encoded(constriction, residuals - least, histogram_model(constriction, counts))
        head = packed(unseen.astype("<f8")) + RESIDUALS.pack(least) + packed(counts)
        return [head, code, SECTION.pack(zlib.crc32(exact))]

    def _grids(self, unseen):
        """Yield columns and all values that they have, with some that did not occur in `fit`."""
        for columns, grid, _ in self.estimator_._dequantizer.groups():
            yield columns, np.union1d(grid, unseen) + 0.0  # no negative zeros

    def _fingerprint(self):
        """Return 8 bytes that depend on the flow, the scales of the code and the values of rows."""
        content = hashlib.sha256()
        for name, value in sorted(self.estimator_.flow_.state_dict().items()):
            content.update(name.encode())
            content.update(np.ascontiguousarray(value.cpu().numpy()))
        content.update(self.latent_scale_)
        for _, grid, _ in self.estimator_._dequantizer.groups():
            content.update(grid)
        return content.digest()[:8]


class Reader:
    """Sections of bytes, one after another."""

    def __init__(self, data, offset):
        self.data, self.offset = data, offset

    def number(self, kind):
        """Return the next number of a kind."""
        (number,) = kind.unpack_from(self.data, self.offset)
        self.offset += kind.size
        return number

    def section(self):
        """Return the next section, whose length precedes it."""
        length = self.number(SECTION)
        self.offset += length
        return self.data[self.offset - length : self.offset]


def import_constriction():
    """Return the library of the range coder, or raise an error that says how to install it."""
    try:
        import constriction
    except ImportError as error:
        raise ImportError(
            "FlowCompressor needs constriction, which is not installed: pip install constriction"
        ) from error
    return constriction


def packed(values):
    """Return an array as a section of bytes."""
    content = zlib.compress(values.tobytes(), 9)
    return SECTION.pack(len(content)) + content


def histogram_model(constriction, counts):
    """Return probabilities in proportion to counts."""
    shares = counts / counts.sum()
    return constriction.stream.model.Categorical(shares, perfect=False)


def encoded(constriction, symbols, *model):
    """Return symbols as a section of bytes.

    ``*model`` is a model, or a family of models and arrays of its parameters.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(np.ascontiguousarray(symbols, dtype=np.int32).ravel(), *model)
    words = encoder.get_compressed().astype("<u4").tobytes()
    return SECTION.pack(len(words)) + words


def decoded(constriction, reader, *model):
    """Return the symbols of the next section.

    ``*model`` is a model and the number of symbols, or a family of models and arrays of its
    parameters.
    """
    words = np.frombuffer(reader.section(), dtype="<u4").astype(np.uint32)
    return constriction.stream.queue.RangeDecoder(words).decode(*model)
