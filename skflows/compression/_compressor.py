"""Lossy and lossless compression: the quantised latent coordinates of a flow, range coded."""

import hashlib
import struct
import zlib
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..density._base import BaseFlowDensity
from ..density._third_party import is_frozen
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import HasMethods, Interval, fit_context

MAGIC, VERSION = b"SKFC", 1
# Magic, version, whether lossless, fingerprint of the flow, rows, columns, step, largest symbol.
HEADER = struct.Struct("<4sB?8sIIdI")
SECTION = struct.Struct("<I")  # bytes of what follows
RESIDUALS = struct.Struct("<i")  # the least residual
COARSEST = 4.0  # step at quality 0, in standard deviations of the latent space
HALVING = 10  # points of quality that halve the step
LARGEST = 2**20  # symbol; latent coordinates beyond are cut, and residuals make up for it


class FlowCompressor(PersistenceMixin, MetaEstimatorMixin, BaseEstimator):
    """Compression of rows, such as images, by a flow.

    Rows are mapped to latent coordinates, which are rounded to multiples of a step and written by a
    range coder under the flow's prior, a standard normal. A row that is probable under the flow
    thus takes few bytes. `decompress` maps the rounded coordinates back.

    Needs ``pip install "skflows[compression]"``.

    Parameters
    ----------
    estimator : estimator
        A flow density that is exactly invertible, such as `GlowDensity` with an ``image_shape``; a
        fitted one as ``sklearn.frozen.FrozenEstimator(density)``. If it was trained with noise
        (``input_noise``), details smaller than that take few bytes.

    quality : float, default=50
        From 0 to 100. The step is ``4 * 2 ** (-quality / 10)`` standard deviations of the latent
        space.

    lossless : bool, default=False
        Whether to write the differences from the decompressed rows too, in units of the distance
        between values. All columns must be discrete.

    Attributes
    ----------
    estimator_ : estimator
        The fitted flow density.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

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
        """Fit the flow to the rows of X; a frozen one stays as it is.

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
        flow = self.estimator.estimator if is_frozen(self.estimator) else self.estimator
        if not isinstance(flow, BaseFlowDensity) or hasattr(flow, "n_augmented"):
            raise TypeError(
                f"estimator is a {type(flow).__name__}; give a flow density with an exact inverse, "
                "such as GlowDensity."
            )
        self.estimator_ = flow if is_frozen(self.estimator) else clone(flow).fit(X)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def compress(self, X, quality=None):
        """Return rows as bytes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. Many rows in one call share the 40 bytes around them.

        quality : float, default=None
            That of the parameter ``quality``, if None.

        Returns
        -------
        data : bytes
            What `decompress` reads: a header with the version and a fingerprint of the flow, the
            code, and a checksum.

        Raises
        ------
        ValueError
            If the quality is not between 0 and 100, or if rows are to be compressed without loss
            and have values that are not discrete.
        ImportError
            If `constriction` is not installed.
        """
        constriction = import_constriction()
        check_is_fitted(self)
        quality = self.quality if quality is None else quality
        if not (isinstance(quality, Real) and 0 <= quality <= 100):
            raise ValueError(f"quality={quality!r}; it must be a number from 0 to 100.")
        step = COARSEST * 2.0 ** (-quality / HALVING)
        latent = self.estimator_.transform(X)
        symbols = np.rint(latent / step).clip(-LARGEST, LARGEST).astype(np.int32)
        largest = max(int(np.abs(symbols).max()), 1)
        code = encoded(constriction, symbols, prior(constriction, step, largest))
        parts = [
            HEADER.pack(
                MAGIC, VERSION, self.lossless, self._fingerprint(), *latent.shape, step, largest
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
            If the bytes are damaged, of another version, or written with another flow.
        ImportError
            If `constriction` is not installed.
        """
        constriction = import_constriction()
        check_is_fitted(self)
        data = bytes(data)
        if len(data) < HEADER.size + SECTION.size or data[: len(MAGIC)] != MAGIC:
            raise ValueError("data does not begin as what FlowCompressor.compress returns.")
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
                "data was written with another flow: decompress it with the compressor that wrote "
                "it, saved by its method save."
            )
        reader = Reader(body, HEADER.size)
        symbols = decoded(constriction, reader, n * d, prior(constriction, step, largest))
        latent = symbols.reshape(n, d) * step
        if not (lossless or rounded):
            return self.estimator_.inverse_transform(latent)
        rows = self._rows(latent)
        if not lossless:
            return rows
        least = reader.number(RESIDUALS)
        counts = np.frombuffer(zlib.decompress(reader.section()), dtype="<u4")
        model = histogram_model(constriction, counts)
        residuals = least + decoded(constriction, reader, n * d, model).reshape(n, d)
        exact = self._with_residuals(rows, residuals)
        if zlib.crc32(exact) != reader.number(SECTION):
            raise ValueError(
                "the rows differ from those that were compressed: the flow rounds differently on "
                "this machine. Decompress them on one like that which compressed them."
            )
        return exact

    def _rows(self, latent):
        """Return rows for quantised latent coordinates, with discrete values rounded."""
        return self.estimator_._dequantizer.round(self.estimator_.inverse_transform(latent))

    def _residual_parts(self, constriction, X, latent):
        """Return the residuals of rows as bytes: their counts, their code, and a checksum."""
        X = np.ascontiguousarray(np.asarray(X, dtype=np.float64).reshape(latent.shape))
        dequantizer = self.estimator_._dequantizer
        rows = self._rows(latent)
        if len(dequantizer.columns) == X.shape[1]:
            residuals = np.rint((X - rows)[:, dequantizer.columns] / dequantizer.gap)
            residuals = residuals[:, np.argsort(dequantizer.columns)].astype(np.int32)
            exact = (self._with_residuals(rows, residuals) == X).all()
        if len(dequantizer.columns) < X.shape[1] or not exact:
            raise ValueError(
                "lossless=True needs discrete columns, whose values are whole multiples of the "
                "gaps in discrete_ apart: give integers, or compress with lossless=False."
            )
        least = int(residuals.min())
        counts = np.bincount((residuals - least).ravel(), minlength=2).astype("<u4")
        packed = zlib.compress(counts.tobytes(), 9)
        code = encoded(constriction, residuals - least, histogram_model(constriction, counts))
        head = RESIDUALS.pack(least) + SECTION.pack(len(packed)) + packed
        return [head, code, SECTION.pack(zlib.crc32(X))]

    def _with_residuals(self, rows, residuals):
        gaps = np.empty(rows.shape[1])
        gaps[self.estimator_._dequantizer.columns] = self.estimator_._dequantizer.gap
        return np.ascontiguousarray(rows + residuals * gaps) + 0.0  # no negative zeros

    def _fingerprint(self):
        """Return 8 bytes that depend on the weights of the flow and on the values of rows."""
        content = hashlib.sha256()
        for name, value in sorted(self.estimator_.flow_.state_dict().items()):
            content.update(name.encode())
            content.update(np.ascontiguousarray(value.cpu().numpy()))
        for grid, _ in self.estimator_._dequantizer.grids():
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
            "FlowCompressor needs constriction, which is not installed: pip install "
            '"skflows[compression]"'
        ) from error
    return constriction


def prior(constriction, step, largest):
    """Return the probabilities of the symbols of a standard normal coordinate."""
    return constriction.stream.model.QuantizedGaussian(-largest, largest, 0.0, 1 / step)


def histogram_model(constriction, counts):
    """Return probabilities in proportion to counts."""
    shares = counts / counts.sum()
    return constriction.stream.model.Categorical(shares, perfect=False)


def encoded(constriction, symbols, model):
    """Return symbols as a section of bytes."""
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(np.ascontiguousarray(symbols, dtype=np.int32).ravel(), model)
    words = encoder.get_compressed().astype("<u4").tobytes()
    return SECTION.pack(len(words)) + words


def decoded(constriction, reader, n, model):
    """Return the symbols of the next section."""
    words = np.frombuffer(reader.section(), dtype="<u4").astype(np.uint32)
    return constriction.stream.queue.RangeDecoder(words).decode(model, n)
