"""Lossy and lossless compression of rows by a flow."""

import hashlib
import struct
import zlib
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..callbacks._run import fit_task
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import checked_number, row_shape, validate_rows
from ..columns.encoding import copy_names
from ..columns.types import Floats, Table
from ..density import GlowDensity, MAFDensity, NICEDensity, NSFDensity, RealNVPDensity
from ..density._third_party import fit_subtask, is_frozen
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import HasMethods
from ..preprocessing.validation import prepare_table
from ..training.threads import few_threads, fit_context
from ._checks import check

MAGIC, VERSION = b"SKFC", 7
# Magic, version, fingerprint, rows, columns, step (0 without loss), rows by the flow, words.
HEADER = struct.Struct("<4sB8sIIdII")
CHECKSUM = struct.Struct("<I")
COARSEST = 4.0  # step at quality 0, in standard deviations of a column
HALVING = 10  # points of quality that halve the step
# No short stream becomes a large table: beyond the free values, a byte stands for this many.
FREE_VALUES, VALUES_PER_BYTE = 2**20, 128
FLOWS = GlowDensity, MAFDensity, NICEDensity, NSFDensity, RealNVPDensity


class FlowCompressor(PersistenceMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Compression of rows, such as images, by a flow.

    Use it for many rows like the rows of `fit`; for photographs, and for a few rows, use WebP,
    whose files are as small and need no model.

    Without loss, rows of whole numbers, or of fractions that repeat, are written exactly. On the
    sets of ``benchmarks/compression.md``, they take at most about 11 % more bits than the flow's
    likelihood (`bits_per_dim` of images) says. The flow maps integers, and
    draws the noise in the cell of a value from the bits of other rows, which get them back (iFlow).
    The first rows, which have no others, and rows with values of another kind are written by
    zlib, bz2, LZMA or, if Pillow is installed and they are images with one or three channels and
    integers from 0 to 255, side by side as PNG or WebP, whichever is smallest. So are all rows if
    that is smaller.

    With loss, values are rounded to multiples of a step, and these are written exactly. No value
    is off by more than a step. Rows that are compressed again give the same bytes.

    Needs constriction, and Pillow for images (``pip install constriction pillow``).

    Parameters
    ----------
    estimator : estimator
        A `GlowDensity`, with an ``image_shape`` for images, an `NSFDensity`, for tables, or a
        `RealNVPDensity`, `NICEDensity` or `MAFDensity`, without whitening. Pass a fitted one as
        ``sklearn.frozen.FrozenEstimator(density)``. Decompression is slow if the flow is
        autoregressive.

    lossless : bool, default=False
        Whether `decompress` returns the rows exactly. All columns must be discrete.

    Attributes
    ----------
    estimator_ : estimator
        The fitted flow density.

    scale_ : ndarray of shape (n_features,)
        The standard deviation of each column in `fit`, or of all of them if rows are images.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    Notes
    -----
    Decompress with the same releases of torch, SciPy, NumPy and constriction. Networks
    compute exact sums, so that other instruction sets give the same results; elementary
    functions still differ between machines, if rarely in the digits that count. `decompress` then
    raises an error: don't use the bytes as an archive. The checksums find damage, not forgery:
    whoever has the compressor can write any rows. Bytes hold at most 2**20 values and 128 more for
    each byte, which bounds the memory and time of decompression; the bytes of very regular rows are
    padded.

    References
    ----------
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
        "lossless": ["boolean"],
    }

    def __init__(self, estimator, *, lossless=False):
        self.estimator = estimator
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
        import torch  # takes long to import

        from ..bijections._standardize import weighted_moments
        from ._bits import import_constriction

        import_constriction()

        frozen = is_frozen(self.estimator)
        flow = self.estimator.estimator if frozen else self.estimator
        if type(flow) not in FLOWS or "whiten" in np.atleast_1d(flow.preprocessing):
            raise TypeError(
                f"estimator is {flow}; it must be one of {[each.__name__ for each in FLOWS]}, "
                "without whitening."
            )
        if frozen:
            check_is_fitted(flow)
            rows, dequantizer = validate_rows(flow, X, reset=False), flow._dequantizer
        else:
            table = prepare_table(clone(flow).set_params(verbose=0), X)
            rows, dequantizer = table.X, table.dequantizer
        n_discrete, d = len(dequantizer.columns), rows.shape[1]
        if self.lossless and n_discrete < d:
            raise ValueError(
                f"lossless=True needs discrete columns, but {n_discrete} of {d} columns are: give "
                "values that repeat, such as integers, or choose lossless=False."
            )
        with fit_task(self, X, y, max_subtasks=0 if frozen else 1) as task:
            self.estimator_ = flow if frozen else fit_subtask(task, clone(flow), X)
            copy_names(self.estimator_, self)
            values = np.array(rows, dtype=np.float64)
            if row_shape(self.estimator_) is not None:
                values = values.reshape(-1, 1)
            _, scale = weighted_moments(torch.from_numpy(values))
            self.scale_ = np.full(d, scale.numpy())
        return self

    def compress(self, X: Table, quality: float = 50) -> bytes:
        """Return rows as bytes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. Each call adds 45 bytes of header and checksums, so compress many at once.

        quality : float, default=50
            From 0 to 100. The step is ``4 * 2 ** (-quality / 10)`` standard deviations of a column
            or, for images, of all pixels. Discrete columns have an odd number of neighbouring
            values in a step, so they are exact from a certain quality on. Without loss, it has no
            effect.

        Returns
        -------
        data : bytes
            What `decompress` reads: a header with the version and a fingerprint of the compressor,
            the code, and two checksums.
        """
        check_is_fitted(self)
        quality = checked_number("quality", quality, 100)
        step = 0.0 if self.lossless else COARSEST * 2.0 ** (-quality / HALVING)
        rows = np.asarray(validate_rows(self.estimator_, X, reset=False), dtype=np.float64)
        rows = rows + 0.0  # no negative zeros
        with few_threads(rows):
            n_mapped, words, of_rows = self._code(step).encoded(rows)
        fields = *rows.shape, step, n_mapped, len(words)
        header = HEADER.pack(MAGIC, VERSION, self._fingerprint(), *fields)
        content = words.astype("<u4").tobytes().ljust(least_length(rows.size), b"\0")
        data = header + content + CHECKSUM.pack(zlib.crc32(header, of_rows))
        return data + CHECKSUM.pack(zlib.crc32(data))

    def decompress(self, data: bytes) -> Floats:
        """Return the rows that `compress` wrote.

        Parameters
        ----------
        data : bytes
            What `compress` returned.

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
            If Pillow is not installed, where data has an image in PNG or WebP.
        """
        check_is_fitted(self)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is a {type(data).__name__}; give the bytes of compress.")
        data = bytes(data)
        if len(data) < HEADER.size + 2 * CHECKSUM.size or data[: len(MAGIC)] != MAGIC:
            raise ValueError(
                "data is not the output of FlowCompressor.compress: it lacks the signature "
                f"{MAGIC!r}."
            )
        header = data[: HEADER.size]
        _, version, fingerprint, n, d, step, n_mapped, n_words = HEADER.unpack(header)
        content = data[HEADER.size : -2 * CHECKSUM.size]
        checksum_of_rows, checksum_of_data = struct.unpack("<2I", data[-2 * CHECKSUM.size :])
        if version != VERSION:
            raise ValueError(
                f"data has version {version} of the format; this release of skflows reads version "
                f"{VERSION}."
            )
        if zlib.crc32(data[: -CHECKSUM.size]) != checksum_of_data:
            raise ValueError("data is damaged: its checksum does not match its content.")
        if fingerprint != self._fingerprint():
            raise ValueError(
                "data was written with another flow, or with one fitted to other rows: give the "
                "model that wrote it."
            )
        check(d == len(self.scale_), f"it claims {d} columns")
        size = 4 * n_words
        is_whole = len(content) == max(size, least_length(n * d)) and not any(content[size:])
        check(is_whole, "it does not end where it should")
        check(n >= max(n_mapped, 1), f"it claims {n} rows, {n_mapped} of them by the flow")
        if step == 0:
            n_discrete = len(self.estimator_._dequantizer.columns)
            check(n_discrete == d, "it claims that columns are discrete")
        else:
            least = COARSEST * 2.0 ** (-100 / HALVING)
            check(least <= step <= COARSEST, f"it claims a step of {step}")
        words = np.frombuffer(content[:size], "<u4").astype(np.uint32)
        with few_threads(np.broadcast_to(step, (n, d))):
            rows, of_rows = self._code(step).decoded(words, n, n_mapped)
        if zlib.crc32(header, of_rows) != checksum_of_rows:
            raise ValueError(
                "the rows differ from those that were compressed: the flow rounds differently on "
                "this machine. Decompress them on a machine like the one that compressed them."
            )
        return rows

    def _code(self, step):
        """Return the code of rows whose values are rounded to a step; not rounded if it is 0."""
        from ._exact_rows import ExactRows
        from ._integer_flow import IntegerFlow  # with torch, which takes long to import

        dequantizer = self.estimator_._dequantizer
        flow = IntegerFlow(self.estimator_.flow_, dequantizer, step * self.scale_)
        return ExactRows(flow, row_shape(self.estimator_))

    def _fingerprint(self):
        """Return 8 bytes that depend on the flow, the scales of the code and the values of rows."""
        content = hashlib.sha256()
        for name, value in sorted(self.estimator_.flow_.state_dict().items()):
            content.update(name.encode())
            content.update(np.ascontiguousarray(value.cpu().numpy()).data)
        content.update(self.scale_.tobytes())
        for _, grid, _ in self.estimator_._dequantizer.groups():
            content.update(grid)
        return content.digest()[:8]


def least_length(n_values):
    """Return the fewest bytes of a stream of many values."""
    return max(0, (n_values - FREE_VALUES) // VALUES_PER_BYTE)
