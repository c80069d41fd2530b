"""Lossy and lossless compression: the quantised latent coordinates of a flow, range coded."""

import hashlib
import struct
import zlib
from numbers import Real
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..callbacks._run import fit_task
from ..callbacks._support import CallbackSupportMixin
from ..columns.encoding import copy_names
from ..columns.lattice import nearest_index
from ..columns.types import Floats, Table
from ..density._base import BaseFlowDensity
from ..density._third_party import fit_subtask, is_frozen
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import HasMethods, Interval
from ..preprocessing.validation import prepare_table
from ..training.threads import fit_context

MAGIC, VERSION = b"SKFC", 3
# Magic, version, whether lossless, fingerprint, rows, columns, step, largest symbol.
HEADER = struct.Struct("<4sB?8sIIdI")
SECTION = struct.Struct("<I")  # bytes of what follows, or a checksum
RESIDUALS = struct.Struct("<i")  # the least residual
COARSEST = 4.0  # step at quality 0, in standard deviations of the latent space
HALVING = 10  # points of quality that halve the step
LEAST_SCALE = 0.01  # least standard deviation of the prior of a latent coordinate
LARGEST = 2**20  # symbol; only residuals make up for latent coordinates beyond
# No short stream becomes a large table: beyond the free values, a byte stands for this many.
FREE_VALUES, VALUES_PER_BYTE = 2**20, 128
BLOCK = 2**16  # symbols to decode at once


class FlowCompressor(PersistenceMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Compression of rows, such as images, by a flow.

    Rows are mapped to latent coordinates, which are rounded to multiples of a step and written by a
    range coder under a normal prior. A row that is probable under the flow thus takes few bytes.
    `decompress` maps the rounded coordinates back.

    The prior of the flow is a standard normal. The code's prior has the standard deviation of each
    coordinate among the rows of `fit`. It is smaller if the flow was trained with noise that rows
    do not have: uniform noise of discrete columns, or ``input_noise``.

    Needs constriction (``pip install constriction``).

    Parameters
    ----------
    estimator : estimator
        A flow density that is exactly invertible, such as `GlowDensity` with an ``image_shape``.
        Pass a fitted one as ``sklearn.frozen.FrozenEstimator(density)``. If it was trained with
        noise (``input_noise``), the latent space ignores smaller details, which makes files
        smaller.

    quality : float, default=50
        From 0 to 100. The step is ``4 * 2 ** (-quality / 10)`` standard deviations of the latent
        space.

    lossless : bool, default=False
        Whether to write the differences from the decompressed rows too, as numbers of values in
        between. All columns must be discrete. Values that were not seen in `fit` take up to 8 bytes
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
    error: don't use them as an archive. The checksums find damage, not forgery: whoever has the
    compressor can write any rows. Decompression takes memory and time in proportion to the rows
    that the bytes claim: at most 2**20 values, and 128 more for each byte.

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
    def fit(self, X: Table, y: object = None) -> Self:
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
        with fit_task(self, X, y, max_subtasks=0 if frozen else 1) as task:
            self.estimator_ = flow if frozen else fit_subtask(task, clone(flow), X)
            copy_names(self.estimator_, self)
            if not frozen:
                latent = self.estimator_.transform(X)
            mean_square = np.square(np.asarray(latent)).mean(axis=0)
            self.latent_scale_ = np.sqrt(mean_square).clip(LEAST_SCALE, 1.0)
        return self

    def compress(self, X: Table, quality: float | None = None) -> bytes:
        """Return rows as bytes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. Each call adds about 40 bytes of header and checksum, so compress many rows at
            once.

        quality : float, default=None
            If None, the parameter ``quality``.

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
        if not (isinstance(quality, Real) and 0 <= float(quality) <= 100):
            raise ValueError(f"quality={quality!r}; it must be a number from 0 to 100.")
        step = COARSEST * 2.0 ** (-float(quality) / HALVING)
        steps = np.rint(np.asarray(self.estimator_.transform(X)) / step)
        in_range = np.abs(steps) <= LARGEST  # not if NaN
        if not (self.lossless or in_range.all()):
            raise ValueError(
                f"row {in_range.all(axis=1).argmin()} is too improbable for quality={quality:g}: "
                "lower the quality, or choose lossless=True."
            )
        symbols = np.nan_to_num(steps).clip(-LARGEST, LARGEST).astype(np.int32)
        largest = max(int(np.abs(symbols).max()), 1)
        header = HEADER.pack(
            MAGIC, VERSION, self.lossless, self._fingerprint(), *symbols.shape, step, largest
        )
        prior = self._prior(constriction, step, largest)
        parts = [header, encoded(constriction, header, symbols, *prior(len(symbols)))]
        if self.lossless:
            parts += self._residual_parts(constriction, header, X, symbols * step)
        data = b"".join(parts).ljust(least_length(symbols.size), b"\0")
        return data + SECTION.pack(zlib.crc32(data))

    def decompress(self, data: bytes, *, rounded: bool = True) -> Floats:
        """Return the rows that `compress` wrote.

        Parameters
        ----------
        data : bytes
            What `compress` returned.

        rounded : bool, default=True
            Whether to round discrete columns to their values. Rows that are not rounded compress
            to the same bytes again at the same quality. Rows compressed without loss are always
            exact.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows: exactly if they were compressed without loss, otherwise nearly so.

        Raises
        ------
        ValueError
            If the bytes are damaged, of another version, or written with another flow, or with a
            flow fitted to other rows.
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
                f"{MAGIC!r}."
            )
        _, version, lossless, fingerprint, n, d, step, largest = HEADER.unpack_from(data)
        if version != VERSION:
            raise ValueError(
                f"data has version {version} of the format; this release of skflows reads version "
                f"{VERSION}."
            )
        body, (checksum,) = data[: -SECTION.size], SECTION.unpack(data[-SECTION.size :])
        if zlib.crc32(body) != checksum:
            raise ValueError("data is damaged: its checksum does not match its content.")
        if fingerprint != self._fingerprint():
            raise ValueError(
                "data was written with another flow, or with one fitted to other rows: decompress "
                "it with the compressor that wrote it, saved by its method save."
            )
        check(d == len(self.latent_scale_), f"it claims {d} columns")
        check(n > 0 and len(body) >= least_length(n * d), f"it claims {n} rows")
        check(COARSEST * 2.0 ** (-100 / HALVING) <= step <= COARSEST, f"it claims a step of {step}")
        check(0 < largest <= LARGEST, f"it claims a symbol of {largest}")
        reader = Reader(body)
        prior = self._prior(constriction, step, largest)
        latent = decoded(constriction, reader, (n, d), prior) * step
        if not lossless:
            reader.end(n * d)
            if not rounded:
                return self.estimator_.inverse_transform(latent)
            return self.estimator_._dequantizer.round(self._rows(latent))
        check(len(self.estimator_._dequantizer.columns) == d, "it claims that columns are discrete")
        unseen = reader.unpacked("<f8", n * d)
        check(np.isfinite(unseen).all(), "it has values that are not finite")
        grids = list(self._grids(unseen))
        least = reader.number(RESIDUALS)
        counts = reader.unpacked("<u4", 2 * max(len(grid) for _, grid in grids))
        check(len(counts) > 1 and counts.sum() == n * d, "it counts other rows")
        model = histogram_model(constriction, counts)
        residuals = decoded(constriction, reader, (n, d), lambda n: (model, n * d))
        exact_checksum = reader.number(SECTION)
        reader.end(n * d)
        rows, exact = self._rows(latent), np.empty((n, d))
        for columns, grid in grids:
            places = nearest_index(grid, rows[:, columns]) + least + residuals[:, columns]
            exact[:, columns] = grid[places.clip(0, len(grid) - 1)]
        if zlib.crc32(exact.data) != exact_checksum:
            raise ValueError(
                "the rows differ from those that were compressed: the flow rounds differently on "
                "this machine. Decompress them on a machine like the one that compressed them."
            )
        return exact

    def _prior(self, constriction, step, largest):
        """Return a function of a number of rows, which returns the family of their symbols, the
        means and the standard deviations."""
        family = constriction.stream.model.QuantizedGaussian(-largest, largest)
        scales = self.latent_scale_ / step
        return lambda n: (family, np.zeros(n * len(scales)), np.tile(scales, n))

    def _rows(self, latent):
        """Return rows for quantised latent coordinates, before discrete values are rounded."""
        return np.asarray(self.estimator_.inverse_transform(latent))

    def _residual_parts(self, constriction, header, X, latent):
        """Return the residuals of rows as bytes: new values, and the differences from decompressed
        rows, in places of the sorted values."""
        X = np.asarray(X, dtype=np.float64).reshape(latent.shape)
        groups = self.estimator_._dequantizer.groups()
        unseen = np.unique(np.concatenate([np.setdiff1d(X[:, group], g) for group, g, _ in groups]))
        rows, exact = self._rows(latent), np.empty(latent.shape)
        residuals = np.empty(latent.shape, dtype=np.int32)
        for columns, grid in self._grids(unseen):
            places = np.searchsorted(grid, X[:, columns])
            residuals[:, columns] = places - nearest_index(grid, rows[:, columns])
            exact[:, columns] = grid[places]
        least = int(residuals.min())
        counts = np.bincount((residuals - least).ravel(), minlength=2).astype("<u4")
        model = histogram_model(constriction, counts)
        code = encoded(constriction, header, residuals - least, model)
        head = packed(unseen.astype("<f8")) + RESIDUALS.pack(least) + packed(counts)
        return [head, code, SECTION.pack(zlib.crc32(exact.data))]

    def _grids(self, unseen):
        """Yield columns and all their values, including some that were not seen in `fit`."""
        for columns, grid, _ in self.estimator_._dequantizer.groups():
            yield columns, np.union1d(grid, unseen) + 0.0  # no negative zeros

    def _fingerprint(self):
        """Return 8 bytes that depend on the flow, the scales of the code and the values of rows."""
        content = hashlib.sha256()
        for name, value in sorted(self.estimator_.flow_.state_dict().items()):
            content.update(name.encode())
            content.update(np.ascontiguousarray(value.cpu().numpy()).data)
        content.update(self.latent_scale_)
        for _, grid, _ in self.estimator_._dequantizer.groups():
            content.update(grid)
        return content.digest()[:8]


def check(is_so, otherwise):
    """Raise the error of damaged data, with what is wrong with it, unless all is well."""
    if not is_so:
        raise ValueError(f"data is damaged, although it has the right checksum: {otherwise}.")


def least_length(n_values):
    """Return the fewest bytes before the checksum of a stream of many values."""
    return (n_values - FREE_VALUES) // VALUES_PER_BYTE


class Reader:
    """Sections of bytes after a header, one after another."""

    def __init__(self, data):
        self.data, self.offset = data, HEADER.size
        self.header = data[: HEADER.size]

    def take(self, length):
        """Return the next bytes."""
        self.offset += length
        check(self.offset <= len(self.data), "it ends early")
        return self.data[self.offset - length : self.offset]

    def number(self, kind):
        """Return the next number of a kind."""
        return kind.unpack(self.take(kind.size))[0]

    def section(self):
        """Return the next section, whose length precedes it."""
        return self.take(self.number(SECTION))

    def unpacked(self, dtype, most):
        """Return the array of the next section that `packed` wrote, if it has at most so many
        values."""
        size = np.dtype(dtype).itemsize
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(self.section(), most * size + 1)
        except zlib.error as error:
            check(False, error)
        is_whole = stream.eof and not stream.unused_data and len(content) <= most * size
        check(is_whole and len(content) % size == 0, "a section has other bytes")
        return np.frombuffer(content, dtype)

    def end(self, n_values):
        """Check that nothing follows but the padding of a stream of many values."""
        padding = bytes(max(0, least_length(n_values) - self.offset))
        check(self.data[self.offset :] == padding, "it does not end where it should")


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


def encoded(constriction, header, symbols, *model):
    """Return symbols as a section of bytes, and the checksum of the header and the symbols.

    ``*model`` is a model, or a family of models and arrays of its parameters.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    symbols = np.ascontiguousarray(symbols, dtype=np.int32)
    encoder.encode(symbols.ravel(), *model)
    words = encoder.get_compressed().astype("<u4").tobytes()
    return SECTION.pack(len(words)) + words + SECTION.pack(symbols_checksum(header, symbols))


def decoded(constriction, reader, shape, model):
    """Return the symbols of the next section.

    ``model(n)`` returns a model and the number of symbols of n rows, or a family of models and
    arrays of its parameters.
    """
    n, d = shape
    words = reader.section()
    check(len(words) % 4 == 0, "a section has other bytes")
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))
    symbols = np.empty(shape, dtype=np.int32)
    step = max(1, BLOCK // d)
    for start in range(0, n, step):
        rows = symbols[start : start + step]
        try:
            rows[:] = decoder.decode(*model(len(rows))).reshape(rows.shape)
        except AssertionError as error:  # words that the model excludes
            check(False, error)
    # The decoder itself reads any words, and zeros after the last one.
    check(reader.number(SECTION) == symbols_checksum(reader.header, symbols), "its rows are others")
    return symbols


def symbols_checksum(header, symbols):
    """Return the CRC-32 of a header and of the symbols of a section."""
    return zlib.crc32(symbols.astype("<i4", copy=False), zlib.crc32(header))
