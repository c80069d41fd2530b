"""Lossy and lossless compression of rows by a flow."""

import hashlib
import math
import struct
import zlib
from numbers import Real
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..callbacks._run import fit_task
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import row_shape, validate_rows
from ..columns.encoding import copy_names
from ..columns.types import Floats, Table
from ..density import GlowDensity, MAFDensity, NICEDensity, NSFDensity, RealNVPDensity
from ..density._base import BaseFlowDensity
from ..density._third_party import fit_subtask, is_frozen
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import HasMethods, Interval
from ..preprocessing.validation import prepare_table
from ..training.threads import fit_context
from ._sections import SECTION, Reader, check, least_length, section

MAGIC, VERSION = b"SKFC", 4
HEADER = struct.Struct("<4sB?8sII")  # magic, version, whether lossless, fingerprint, rows, columns
QUANTIZATION = struct.Struct("<dI")  # step and largest symbol of lossy code
COARSEST = 4.0  # step at quality 0, in standard deviations of the latent space
HALVING = 10  # points of quality that halve the step
LEAST_SCALE = 0.01  # least standard deviation of the prior of a latent coordinate
LARGEST = 2**20  # symbol
BLOCK = 2**16  # symbols to decode at once
LOSSLESS = GlowDensity, MAFDensity, NICEDensity, NSFDensity, RealNVPDensity


class FlowCompressor(PersistenceMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Compression of rows, such as images, by a flow.

    Use it without loss, for many rows like the rows of `fit`; for photographs and for files with
    loss use WebP, whose files are smaller.

    Without loss, rows of whole numbers, or of fractions that repeat, are written exactly. On the
    sets of ``benchmarks/compression.md``, they take at most about 10 % more bits than the flow's
    likelihood (`bits_per_dim` of images) says. The flow maps integers, and
    draws the noise in the cell of a value from the bits of other rows, which get them back (iFlow).
    The first rows, which have no others, and rows with values of another kind are written by
    general codecs (zlib, bz2, LZMA), and so are all of them if that is smaller.

    With loss, rows are mapped to latent coordinates, which are rounded to multiples of a step and
    written by a range coder under a normal prior. A row that is probable under the flow thus takes
    few bytes. `decompress` maps the rounded coordinates back. The prior of the flow is a standard
    normal. The code's prior has the standard deviation of each coordinate among the rows of `fit`.
    It is smaller if the flow was trained with noise that rows do not have: uniform noise of
    discrete columns, or ``input_noise``.

    Needs constriction (``pip install constriction``).

    Parameters
    ----------
    estimator : estimator
        A flow density that is exactly invertible, such as `GlowDensity` with an ``image_shape`` for
        images, and `NSFDensity` for tables.
        Pass a fitted one as ``sklearn.frozen.FrozenEstimator(density)``. If it was trained with
        noise (``input_noise``), the latent space ignores smaller details, which makes files
        smaller.

    quality : float, default=50
        From 0 to 100. The step is ``4 * 2 ** (-quality / 10)`` standard deviations of the latent
        space. Without loss, it has no effect.

    lossless : bool, default=False
        Whether `decompress` returns the rows exactly. All columns must be discrete, and the flow a
        `GlowDensity`, `RealNVPDensity`, `NICEDensity`, `NSFDensity` or `MAFDensity`, without
        whitening. Decompression is slow if the flow is autoregressive.

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
    Decompress with the same releases of torch, SciPy, NumPy and constriction. Without loss,
    networks compute exact sums, so that other instruction sets give the same results; elementary
    functions still differ between machines, if rarely in the digits that count. `decompress` then
    raises an error: don't use the bytes as an archive. The checksums find damage, not forgery:
    whoever has the compressor can write any rows. Decompression takes memory and time in proportion
    to the rows that the bytes claim: at most 2**20 values, and 128 more for each byte.

    References
    ----------
    Helminger, Djelouah, Gross & Schroers, "Lossy Image Compression with Normalizing Flows", 2020;
    Zhang, Zhang, Li, Ke & Xie, "iFlow: Numerically Invertible Flows for Efficient Lossless
    Compression via a Uniform Coder", 2021.

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
            if type(flow) not in LOSSLESS or "whiten" in np.atleast_1d(flow.preprocessing):
                raise TypeError(
                    f"lossless=True cannot use {flow}: choose one of "
                    f"{[each.__name__ for each in LOSSLESS]}, without whitening."
                )
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
            If None, the parameter ``quality``. It has no effect without loss.

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
        start = MAGIC, VERSION, self.lossless, self._fingerprint()
        if self.lossless:
            rows = np.asarray(validate_rows(self.estimator_, X, reset=False), dtype=np.float64)
            rows = rows + 0.0  # no negative zeros
            n_mapped, words = self._exact_rows().encoded(constriction, rows)
            code = section(words), SECTION.pack(zlib.crc32(rows.tobytes()))
            parts = [HEADER.pack(*start, *rows.shape), SECTION.pack(n_mapped), *code]
        else:
            rows = np.asarray(self.estimator_.transform(X))
            step = COARSEST * 2.0 ** (-float(quality) / HALVING)
            steps = np.rint(rows / step)
            in_range = np.abs(steps) <= LARGEST  # not if NaN
            if not in_range.all():
                raise ValueError(
                    f"row {in_range.all(axis=1).argmin()} is too improbable for "
                    f"quality={quality:g}: lower the quality, or choose lossless=True."
                )
            largest = max(int(np.abs(steps).max()), 1)
            header = HEADER.pack(*start, *rows.shape) + QUANTIZATION.pack(step, largest)
            prior = self._prior(constriction, step, largest)
            symbols = steps.astype(np.int32)
            parts = [header, encoded(constriction, header, symbols, *prior(len(symbols)))]
        data = b"".join(parts).ljust(least_length(rows.size), b"\0")
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
            The rows: exactly if they were compressed without loss, otherwise nearly so. They are
            float64, whatever the dtypes and names of the columns were.

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
        _, version, lossless, fingerprint, n, d = HEADER.unpack_from(data)
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
        reader = Reader(body, HEADER.size)
        if lossless:
            n_discrete = len(self.estimator_._dequantizer.columns)
            check(n_discrete == d, "it claims that columns are discrete")
            return self._read_exactly(constriction, reader, n, d)
        step, largest = QUANTIZATION.unpack(reader.take(QUANTIZATION.size))
        check(COARSEST * 2.0 ** (-100 / HALVING) <= step <= COARSEST, f"it claims a step of {step}")
        check(0 < largest <= LARGEST, f"it claims a symbol of {largest}")
        prior = self._prior(constriction, step, largest)
        header = body[: reader.offset]
        latent = decoded(constriction, reader, header, (n, d), prior) * step
        reader.end(n * d)
        rows = self.estimator_.inverse_transform(latent)
        return self.estimator_._dequantizer.round(np.asarray(rows)) if rounded else rows

    def _read_exactly(self, constriction, reader, n, d):
        """Return rows that were compressed without loss."""
        n_mapped = reader.number(SECTION)
        check(n_mapped <= n, f"it claims {n_mapped} rows of {n}")
        words = reader.words()
        checksum = reader.number(SECTION)
        reader.end(n * d)
        rows = self._exact_rows().decoded(constriction, words, n, n_mapped)
        if zlib.crc32(rows.tobytes()) != checksum:
            raise ValueError(
                "the rows differ from those that were compressed: the flow rounds differently on "
                "this machine. Decompress them on a machine like the one that compressed them."
            )
        return rows

    def _exact_rows(self):
        """Return the code of rows without loss."""
        from ._exact_rows import ExactRows
        from ._integer_flow import IntegerFlow  # with torch, which takes long to import

        flow = IntegerFlow(self.estimator_.flow_, self.estimator_._dequantizer)
        shape = row_shape(self.estimator_)
        return ExactRows(flow, 1 if shape is None else math.prod(shape[1:]))

    def _prior(self, constriction, step, largest):
        """Return a function of a number of rows, which returns the family of their symbols, the
        means and the standard deviations."""
        family = constriction.stream.model.QuantizedGaussian(-largest, largest)
        scales = self.latent_scale_ / step
        return lambda n: (family, np.zeros(n * len(scales)), np.tile(scales, n))

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


def import_constriction():
    """Return the library of the range coder, or raise an error that says how to install it."""
    try:
        import constriction
    except ImportError as error:
        raise ImportError(
            "FlowCompressor needs constriction, which is not installed: pip install constriction"
        ) from error
    return constriction


def encoded(constriction, header, symbols, *model):
    """Return symbols as a section of bytes, and the checksum of the header and the symbols.

    ``*model`` is a model, or a family of models and arrays of its parameters.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    symbols = np.ascontiguousarray(symbols, dtype=np.int32)
    encoder.encode(symbols.ravel(), *model)
    return section(encoder.get_compressed()) + SECTION.pack(symbols_checksum(header, symbols))


def decoded(constriction, reader, header, shape, model):
    """Return the symbols of the next section.

    ``model(n)`` returns a model and the number of symbols of n rows, or a family of models and
    arrays of its parameters.
    """
    n, d = shape
    decoder = constriction.stream.queue.RangeDecoder(reader.words())
    symbols = np.empty(shape, dtype=np.int32)
    step = max(1, BLOCK // d)
    for start in range(0, n, step):
        rows = symbols[start : start + step]
        try:
            rows[:] = decoder.decode(*model(len(rows))).reshape(rows.shape)
        except AssertionError as error:  # words that the model excludes
            check(False, error)
    # The decoder itself reads any words, and zeros after the last one.
    check(reader.number(SECTION) == symbols_checksum(header, symbols), "its rows are others")
    return symbols


def symbols_checksum(header, symbols):
    """Return the CRC-32 of a header and of the symbols of a section."""
    return zlib.crc32(symbols.astype("<i4", copy=False), zlib.crc32(header))
