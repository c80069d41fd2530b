"""Compression by the latent coordinates of a flow."""

import copy
import pickle
import tracemalloc
import zlib

import numpy as np
import pytest
from _densities import AtEpochEnd
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.estimator_checks import check_estimator

import skflows
from skflows import CNFDensity, FlowCompressor, GlowDensity, RealNVPDensity
from skflows.compression._compressor import HEADER, SECTION, packed

pytest.importorskip("constriction")
X = load_digits().data
NEW = X[200:260]


@pytest.fixture(scope="module")
def compressor():
    density = GlowDensity(
        image_shape=(8, 8, 1), hidden_layer_sizes=8, n_transforms=1, max_iter=3, random_state=0
    )
    return FlowCompressor(density).fit(X[:200])


@pytest.fixture(scope="module")
def lossless(compressor):
    return FlowCompressor(FrozenEstimator(compressor.estimator_), lossless=True).fit(X)


def test_scales_are_those_of_the_rows_of_fit(compressor):
    scales = np.sqrt((compressor.estimator_.transform(X[:200]) ** 2).mean(axis=0))
    np.testing.assert_allclose(compressor.latent_scale_, scales.clip(0.01, 1.0))
    flow = FrozenEstimator(compressor.estimator_)
    assert FlowCompressor(flow).fit(100 * X[:200]).latent_scale_.max() == 1
    with_ones = copy.copy(compressor)
    with_ones.latent_scale_ = np.ones(64)
    assert len(compressor.compress(NEW)) < 0.95 * len(with_ones.compress(NEW))


def rmse(rows):
    return np.sqrt(((rows - NEW) ** 2).mean())


def test_quality_trades_size_for_error(compressor):
    coded = [compressor.compress(NEW, quality) for quality in (0, 20, 40, 80)]
    errors = [rmse(compressor.decompress(data)) for data in coded]
    assert list(map(len, coded)) == sorted(map(len, coded))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0 and errors[0] > 1
    images = NEW.reshape(-1, 8, 8, 1)
    assert compressor.compress(images, 40) == coded[2]


@pytest.mark.parametrize("quality", [10, 50])
def test_size_is_that_of_the_ideal_code(compressor, quality):
    step = 4 * 2.0 ** (-quality / 10)
    symbols = np.rint(compressor.estimator_.transform(X) / step)
    upper, lower = ((symbols + side) * step for side in (0.5, -0.5))
    upper, lower = upper / compressor.latent_scale_, lower / compressor.latent_scale_
    # From the nearer tail, to keep the digits of small probabilities.
    far = symbols > 0
    upper[far], lower[far] = -lower[far], -upper[far]
    ideal = -np.log2(stats.norm.cdf(upper) - stats.norm.cdf(lower)).sum() / 8
    assert 0.98 * ideal < len(compressor.compress(X, quality)) < 1.02 * ideal + 60


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_rows_that_are_not_rounded_compress_to_the_same_bytes(compressor, quality):
    data = compressor.compress(NEW, quality)
    rows = compressor.decompress(data, rounded=False)
    assert compressor.compress(rows, quality) == data
    inside = (rows > 0) & (rows < 16)
    np.testing.assert_array_equal(compressor.decompress(data)[inside], np.rint(rows)[inside])


@pytest.mark.parametrize("quality", [0, 30, 100])
def test_lossless(lossless, quality):
    odd = np.vstack([NEW, np.full((1, 64), 40.0), np.zeros((1, 64))])  # values never seen
    data = lossless.compress(odd, quality)
    np.testing.assert_array_equal(lossless.decompress(data), odd)
    if quality == 30:
        assert len(data) < 0.8 * odd.size  # a pixel of 17 values takes a byte otherwise


def test_lossless_values_of_any_kind(lossless):
    """Negative zeros, halves, and integers beyond the range of the code."""
    odd = NEW[:4].copy()
    odd[odd == 0] = -0.0
    odd[1, :3] = 0.5, 3e7, 5e9
    np.testing.assert_array_equal(lossless.decompress(lossless.compress(odd, 40)), odd)


@pytest.mark.parametrize("scale", [10, 255])
def test_lossless_fractions(compressor, scale):
    density = clone(compressor.estimator_).set_params(max_iter=1).fit(X[:60] / scale)
    fractions = FlowCompressor(FrozenEstimator(density), lossless=True).fit(X / scale)
    data = fractions.compress(NEW / scale)
    np.testing.assert_array_equal(fractions.decompress(data), NEW / scale)
    single = (NEW / scale).astype(np.float32)
    np.testing.assert_array_equal(fractions.decompress(fractions.compress(single)), single)


def test_lossless_columns_of_different_values():
    table = np.random.default_rng(0).integers(0, [2, 5, 40], (80, 3)) * [1.0, 0.1, 7]
    flow = RealNVPDensity(n_transforms=1, max_iter=2, random_state=0)
    compressor = FlowCompressor(flow, lossless=True).fit(table)
    np.testing.assert_array_equal(compressor.decompress(compressor.compress(table)), table)


def test_pandas_output(compressor):
    density = copy.deepcopy(compressor.estimator_).set_output(transform="pandas")
    framed = FlowCompressor(FrozenEstimator(density), lossless=True).fit(X)
    np.testing.assert_array_equal(framed.decompress(framed.compress(NEW[:3])), NEW[:3])


def test_callbacks_see_the_fit(compressor):
    monitor = AtEpochEnd(lambda epoch, fitted: False)
    monitor.max_propagation_depth = None
    flow = clone(compressor.estimator_).set_params(max_iter=2)
    FlowCompressor(flow).set_callbacks(monitor).fit(X[:40])
    assert monitor.epochs == 2


def test_one_row(compressor, lossless):
    for each in (compressor, lossless):
        assert each.decompress(each.compress(NEW[:1])).shape == (1, 64)


def test_damaged_bytes_are_an_error(lossless):
    data = lossless.compress(NEW[:3])
    rng = np.random.default_rng(0)
    for _ in range(300):
        flipped, replaced = bytearray(data), bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        start, stop = np.sort(rng.integers(len(data), size=2))
        replaced[start:stop] = rng.bytes(rng.integers(1, 40))
        for damaged in (flipped, replaced):
            with pytest.raises(ValueError, match=r"^data "):
                lossless.decompress(damaged)
    for n in (0, 3, 30, len(data) - 1):
        with pytest.raises(ValueError, match=r"^data "):
            lossless.decompress(data[:n])


def sealed(body):
    """Return bytes with the right checksum, as an attacker would."""
    return bytes(body) + SECTION.pack(zlib.crc32(body))


@pytest.mark.parametrize("kind", ["compressor", "lossless"])
def test_crafted_bytes_are_an_error(kind, request):
    """Whatever is changed, the rows are the same or there is the documented error."""
    compressor = request.getfixturevalue(kind)
    expected = compressor.decompress(compressor.compress(NEW[:3]))
    body = compressor.compress(NEW[:3])[: -SECTION.size]
    rng = np.random.default_rng(0)
    n_refused = 0
    for i in range(400):
        crafted = bytearray(body)
        place = rng.integers(len(body))
        match i % 4:
            case 0:
                crafted[place] ^= 1 << rng.integers(8)
            case 1:
                crafted[place : place + 4] = rng.choice([bytes(4), b"\xff" * 4, rng.bytes(4)])
            case 2:
                del crafted[place:]
            case 3:
                crafted[place:place] = rng.bytes(rng.integers(1, 9))
        try:
            rows = compressor.decompress(sealed(crafted))
        except ValueError as error:
            assert str(error).startswith(("data ", "the rows differ"))
            n_refused += 1
        else:  # a bit that means nothing, such as the last ones of the code
            np.testing.assert_array_equal(rows, expected)
    assert n_refused > 370


@pytest.mark.parametrize("kind", ["compressor", "lossless"])
@pytest.mark.parametrize(
    ("field", "values"),
    [
        (2, [True, False]),
        (4, [0, 1, 2, 4, 100, 2**14, 2**32 - 1]),  # rows
        (5, [0, 1, 63, 65, 2**32 - 1]),  # columns
        (6, [0.0, -1.0, 1e-300, 1e300, 0.5, np.nan, np.inf]),  # the step
        (7, [0, 1, 2**20, 2**24, 2**31 - 1, 2**32 - 1]),  # the largest symbol
    ],
)
def test_crafted_headers_are_an_error(kind, field, values, request):
    compressor = request.getfixturevalue(kind)
    body = compressor.compress(NEW[:3])[: -SECTION.size]
    for value in values:
        header = list(HEADER.unpack_from(body))
        if value == header[field]:
            continue
        header[field] = value
        with pytest.raises(ValueError, match=r"^data is damaged, although"):
            compressor.decompress(sealed(HEADER.pack(*header) + body[HEADER.size :]))


def test_small_bytes_take_little_memory(lossless):
    """Neither a compressed section nor the number of rows makes megabytes of a few kilobytes."""
    body = lossless.compress(NEW[:3])[: -SECTION.size]
    sections, offset = [], HEADER.size
    for n_following in (4, 4, 0):  # the code and its checksum; the values and the least residual
        (length,) = SECTION.unpack_from(body, offset)
        offset += 4 + length + n_following
        sections.append(offset)
    bomb = packed(np.zeros(4 * 10**6, dtype="<f8"))
    code, values, counts = sections
    rows = HEADER.pack(*HEADER.unpack_from(body)[:4], 2**20, *HEADER.unpack_from(body)[5:])
    for crafted in (
        body[:code] + bomb + body[values - 4 :],
        body[:values] + bomb + body[counts:],
        rows + body[HEADER.size :],
    ):
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"^data is damaged, although"):
            lossless.decompress(sealed(crafted))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(crafted) < 40_000 and most < 10**6


def test_many_rows_of_few_bits(compressor, monkeypatch):
    """They are padded, because few bytes may not claim many rows."""
    rows = np.repeat(NEW[:1], 1000, axis=0)
    alone = len(compressor.compress(rows, 0))
    monkeypatch.setattr("skflows.compression._compressor.FREE_VALUES", 1000)
    monkeypatch.setattr("skflows.compression._compressor.VALUES_PER_BYTE", 30)
    data = compressor.compress(rows, 0)
    assert alone < len(data) == (64_000 - 1000) // 30 + 4
    np.testing.assert_array_equal(
        compressor.decompress(data), np.repeat(compressor.decompress(data)[:1], 1000, axis=0)
    )
    body = data[: -SECTION.size]
    for crafted in (body[:-1], body + bytes(1), body[:-1] + b"x"):
        with pytest.raises(ValueError, match=r"^data is damaged, although"):
            compressor.decompress(sealed(crafted))


def test_another_flow_is_an_error(compressor):
    other = FlowCompressor(RealNVPDensity(n_transforms=1, max_iter=1, random_state=0)).fit(X[:60])
    same = FlowCompressor(FrozenEstimator(compressor.estimator_)).fit(X)
    for each in (other, same):
        with pytest.raises(ValueError, match="another flow, or with one fitted to other rows"):
            each.decompress(compressor.compress(NEW[:2]))


def test_saved_compressor_reads_what_was_written(compressor, tmp_path):
    data = compressor.compress(NEW[:5])
    compressor.save(tmp_path / "compressor.skflows")
    expected = compressor.decompress(data)
    for again in (
        skflows.load(tmp_path / "compressor.skflows"),
        pickle.loads(pickle.dumps(compressor)),
    ):
        np.testing.assert_array_equal(again.decompress(data), expected)


def test_estimator_checks():
    flow = RealNVPDensity(
        n_transforms=1,
        hidden_layer_sizes=4,
        max_iter=1,
        preprocessing="standardize",
        random_state=0,
    )
    check_estimator(FlowCompressor(flow), on_skip=None)


def test_errors(compressor, lossless):
    with pytest.raises(ValueError, match="quality=101; it must be a number from 0 to 100"):
        compressor.compress(NEW, quality=101)
    with pytest.raises(ValueError, match=r"grids of shape \(8, 8, 1\)"):
        compressor.compress(NEW[:, :9])
    continuous = RealNVPDensity(n_transforms=1, max_iter=1, discrete=[1], random_state=0)
    for estimator in (continuous, FrozenEstimator(clone(continuous).fit(X[:60, 2:5] + 0.5))):
        with pytest.raises(ValueError, match="discrete columns, but 1 of 3 columns are"):
            FlowCompressor(estimator, lossless=True).fit(X[:60, 2:5] + 0.5)
    frozen = FlowCompressor(FrozenEstimator(compressor.estimator_))
    with pytest.raises(ValueError, match=r"grids of shape \(8, 8, 1\)"):
        frozen.fit(X[:, :9])
    assert not hasattr(frozen, "estimator_")
    with pytest.raises(NotFittedError):
        FlowCompressor(FrozenEstimator(GlowDensity())).fit(X)
    with pytest.raises(TypeError, match="data is a str; give the bytes"):
        compressor.decompress("text")
    with pytest.raises(ValueError, match="row 1 is too improbable for quality=100"):
        compressor.compress(np.vstack([NEW[:1], 1e5 * NEW[1:2]]), 100)
    with pytest.raises(TypeError, match="CNFDensity; give a flow density with an exact inverse"):
        FlowCompressor(CNFDensity()).fit(X)
