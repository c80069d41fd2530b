"""Compression by the latent coordinates of a flow."""

import bz2
import copy
import io
import lzma
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from _densities import AtEpochEnd
from sklearn.base import clone
from sklearn.datasets import load_digits, load_sample_image
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.estimator_checks import check_estimator

import skflows
from skflows import (
    CNFDensity,
    FlowCompressor,
    GlowDensity,
    MAFDensity,
    NICEDensity,
    NSFDensity,
    RealNVPDensity,
)
from skflows.bijections._flow import Flow
from skflows.compression._compressor import CHECKSUM, HEADER
from skflows.compression._exact_rows import lzma_filters, packed
from skflows.compression._integer_flow import N_POINTS

pytest.importorskip("constriction")
Image = pytest.importorskip("PIL.Image")
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


@pytest.fixture(scope="module")
def bodies(compressor, lossless):
    """What the compressors write, without the checksum at the end."""
    each = {"compressor": compressor, "lossless": lossless}
    return {kind: own.compress(NEW, 20)[: -CHECKSUM.size] for kind, own in each.items()}


def test_scales_are_deviations_of_columns(compressor):
    np.testing.assert_allclose(compressor.scale_, X[:200].std())  # pixels have one
    table = np.column_stack([X[:60, 2:4], np.ones(60)])
    flow = RealNVPDensity(n_transforms=1, max_iter=1, random_state=0)
    np.testing.assert_allclose(FlowCompressor(flow).fit(table).scale_[:2], table[:, :2].std(axis=0))


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


@pytest.mark.parametrize("quality", [0, 10, 30, 70])
def test_errors_are_below_a_step(compressor, quality):
    step = 4 * 2 ** (-quality / 10) * X[:200].std()
    n_values = 2 * max(round((step - 1) / 2), 0) + 1
    data = compressor.compress(NEW, quality)
    rows = compressor.decompress(data)
    assert (n_values > 1) == (np.abs(rows - NEW).max() > 0)
    assert np.isin(rows, np.arange(17)).all()
    assert compressor.compress(rows, quality) == data
    middles = n_values * np.rint(NEW / n_values)
    assert rmse(rows) <= rmse(middles)  # means of cells
    far = np.where(np.arange(64) > 0, NEW[:1], 1e4)
    odd = np.vstack([17 - NEW[:5], np.full((1, 64), 300.0), NEW[:1] / 3, 1e300 * NEW[:1], far])
    data = compressor.compress(odd, quality)
    restored = compressor.decompress(data)
    assert (np.abs(rows - NEW) <= step).all() and (np.abs(restored - odd) <= step).all()
    assert compressor.compress(restored, quality) == data
    assert restored[-1, 1:].max() <= 16  # beside a value far out


@pytest.mark.parametrize("bounds", [None, {1: (0, None), 2: (0, 1)}])
def test_continuous_columns(bounds):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=100), rng.exponential(size=100), rng.random(100)])
    flow = RealNVPDensity(n_transforms=1, max_iter=1, bounds=bounds, random_state=0)
    compressor = FlowCompressor(flow).fit(rows)
    odd = np.vstack([rows, rows * [1e3, 1, 1], [[1e300, 1.0, 0.5]]])
    for quality in (0, 20, 60):
        step = 4 * 2 ** (-quality / 10) * rows.std(axis=0)
        data = compressor.compress(odd, quality)
        restored = compressor.decompress(data)
        assert (np.abs(restored - odd) <= step).all()
        assert compressor.compress(restored, quality) == data
        assert bounds is None or (restored[:, 1:].min() >= 0 and restored[:, 2].max() <= 1)
    assert restored[-1, 0] == 1e300


def test_columns_of_any_location_and_scale():
    normal = np.random.default_rng(0).normal(size=(400, 2))
    rows = np.column_stack([1e12 + normal[:, 0], 1e200 * normal[:, 1], np.full(400, 0.1)])
    flow = RealNVPDensity(n_transforms=1, max_iter=1, discrete=None, random_state=0)
    compressor = FlowCompressor(flow).fit(rows)
    np.testing.assert_allclose(compressor.scale_ / [1, 1e200, 1], [*normal.std(axis=0), 1], 1e-5)
    data = compressor.compress(rows, 60)
    assert HEADER.unpack_from(data)[6] > 0  # rows by the flow
    step = 4 * 2**-6 * compressor.scale_
    assert (np.abs(compressor.decompress(data) - rows) <= step).all()


MOST_BYTES_OF_HEADER = 70
WEBP = {"format": "WEBP", "lossless": True}


def smallest_without_flow(rows, shape=(8, 8, 1)):
    """Return the bytes of images with 8 bits by the best of the other codecs."""
    n_across = {1: 1, 32: 8}.get(len(rows), 16 if len(rows) % 16 == 0 else 20)
    content = rows.astype(np.uint8).tobytes()
    pitch = shape[1] * shape[2]
    filters = [lzma_filters(distance, len(content)) for distance in (0, 1, 3, pitch)]
    codes = [lzma.compress(content, lzma.FORMAT_RAW, filters=each) for each in filters]
    tiles = rows.astype(np.uint8).reshape(-1, n_across, *shape).swapaxes(1, 2)
    pixels = tiles.reshape(-1, n_across * shape[1], shape[2])
    image = Image.fromarray(pixels if shape[2] == 3 else pixels[..., 0])
    settings = [{"format": "PNG", "optimize": True}, WEBP, WEBP | {"method": 6}]
    if pixels[..., 0].size <= 2**12:
        settings.append(WEBP | {"method": 6, "quality": 100})
    for options in settings:
        file = io.BytesIO()
        image.save(file, **options)
        codes.append(file.getvalue())
    return min(map(len, [*codes, zlib.compress(content, 9), bz2.compress(content)]))


def draws(kind, n=80):
    """Return images of a kind, most of them improbable."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 17, (n, 64)).astype(float)
    some = X[200 : 200 + n]
    return {
        "digits": some,
        "noise": noise,
        "inverted": 16 - some,
        "constant": np.tile(np.arange(n)[:, None] % 17.0, 64),
        "odd": np.vstack([some, np.full((1, 64), 40.0), 1e6 * noise[:1], noise[:1] / 7]),
        "mixed": np.vstack([some[:9], noise[:14], 16 - some[:9]]),
        "one image": some[:1],
        "photograph": tiles_of_photograph((8, 8, 1), n),
    }[kind]


def tiles_of_photograph(shape, n):
    """Return images that cover a part of a photograph, 16 of them side by side."""
    height, width, n_channels = shape
    pixels = load_sample_image("china.jpg")[100:, 100:, :n_channels]
    pixels = pixels[: n // 16 * height, : 16 * width]
    tiles = pixels.reshape(-1, height, 16, width, n_channels).swapaxes(1, 2)
    return tiles.reshape(n, -1).astype(float)


@pytest.mark.parametrize(
    "kind",
    "digits, noise, inverted, constant, odd, mixed, one image, photograph".split(", "),
)
def test_lossless(lossless, kind):
    rows = draws(kind)
    data = lossless.compress(rows)
    np.testing.assert_array_equal(lossless.decompress(data), rows)
    if kind != "odd":
        assert len(data) <= smallest_without_flow(rows) + MOST_BYTES_OF_HEADER


def test_colour_photographs_are_stored_by_an_image_codec(monkeypatch):
    shape = (8, 6, 3)
    rows = tiles_of_photograph(shape, 32)
    density = GlowDensity(
        image_shape=shape, hidden_layer_sizes=4, n_transforms=1, max_iter=1, random_state=0
    )
    compressor = FlowCompressor(density, lossless=True).fit(rows)
    data = compressor.compress(rows)
    np.testing.assert_array_equal(compressor.decompress(data), rows)
    assert len(data) <= smallest_without_flow(rows, shape) + MOST_BYTES_OF_HEADER
    # Values beside those of the fit.
    others = np.where(rows == 255, 254, rows + 1)
    sparse = FlowCompressor(clone(density), lossless=True).fit(rows // 4 * 4)
    bright = FlowCompressor(clone(density), lossless=True).fit(rows.clip(1, 255))
    darker = rows.clip(1, 255)
    darker[5, 7] = 0
    for each, unlike in ((sparse, others), (bright, darker)):
        stored = each.compress(unlike)
        np.testing.assert_array_equal(each.decompress(stored), unlike)
        assert len(stored) <= smallest_without_flow(unlike, shape) + MOST_BYTES_OF_HEADER
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match="which Pillow refuses: increase PIL"):
        compressor.decompress(data)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match="needs Pillow: pip install pillow"):
        compressor.decompress(data)
    without = compressor.compress(rows)
    assert len(data) < len(without) and (compressor.decompress(without) == rows).all()


def test_lossless_size_is_that_of_the_likelihood(lossless):
    """Beyond the first rows, which take the bits of a general codec."""
    rows = X[200:800]
    first, size = (8 * len(lossless.compress(rows[:n])) for n in (100, 600))
    bits = (size - first) / rows[100:].size
    # The mean density of a cell is at least what a single point of it gives.
    assert bits < lossless.estimator_.bits_per_dim(rows[100:]).mean() + 0.1
    assert size / 8 < smallest_without_flow(rows)


def test_equal_rows_are_packed_a_few_times(lossless, monkeypatch):
    """Many of them are needed for enough bits."""
    sizes = []

    def counted(content, *args):
        sizes.append(len(content))
        return packed(content, *args)

    monkeypatch.setattr("skflows.compression._exact_rows.packed", counted)
    rows = np.repeat(NEW[:1], 1000, axis=0)
    np.testing.assert_array_equal(lossless.decompress(lossless.compress(rows)), rows)
    assert len({*sizes}) == len(sizes) < 30


@pytest.mark.parametrize(
    "density",
    [
        GlowDensity(n_bins=4, image_shape=(8, 8, 1), hidden_layer_sizes=4),
        GlowDensity(n_bins=4, hidden_layer_sizes=8),
        RealNVPDensity(hidden_layer_sizes=8, preprocessing="standardize"),
        NICEDensity(hidden_layer_sizes=8),
        NSFDensity(hidden_layer_sizes=8, n_bins=4),
        NSFDensity(hidden_layer_sizes=8, n_bins=4, autoregressive=False),
        MAFDensity(hidden_layer_sizes=8, bounds={0: (-1, None)}),
    ],
)
def test_lossless_flows(density):
    rows = X[:150] if getattr(density, "image_shape", None) else X[:300, 2:6]
    density = clone(density).set_params(n_transforms=2, max_iter=3, random_state=0)
    compressor = FlowCompressor(density, lossless=True).fit(rows)
    odd = np.vstack([rows, 17 - rows[:5], np.full((1, rows.shape[1]), 300.0), rows[:1] / 3])
    data = compressor.compress(odd)
    np.testing.assert_array_equal(compressor.decompress(data), odd)
    assert HEADER.unpack_from(data)[6] > 0.9 * len(rows)  # by the flow


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
        assert each.decompress(each.compress(NEW[:1], 20)).shape == (1, 64)


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
    return bytes(body) + CHECKSUM.pack(zlib.crc32(body))


def test_crafted_bytes_are_an_error(compressor):
    """Whatever is changed, the rows are the same or there is the documented error."""
    expected = compressor.decompress(compressor.compress(NEW[:3], 20))
    body = compressor.compress(NEW[:3], 20)[: -CHECKSUM.size]
    rng = np.random.default_rng(0)
    n_refused = 0
    for i in range(200):
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
            assert str(error).count("damaged") <= 1
            n_refused += 1
        else:  # a bit that means nothing, such as the last ones of the code
            np.testing.assert_array_equal(rows, expected)
    assert n_refused > 185


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        *[
            (kind, 3, [0, 1, 2, 4, 100, 2**14, 2**32 - 1])  # rows
            for kind in ("compressor", "lossless")
        ],
        *[(kind, 4, [0, 1, 63, 65, 2**32 - 1]) for kind in ("compressor", "lossless")],
        ("compressor", 5, [0.0, -1.0, 1e-300, 1e300, 0.5, np.nan, np.inf]),  # the step
        ("lossless", 5, [-1.0, 1e-300, 1.0]),
        ("lossless", 6, [0, 1, 59, 61, 2**16, 2**32 - 1]),  # rows by the flow
        ("lossless", 7, [0, 1, 100, 2**16, 2**32 - 1]),  # words
    ],
)
def test_crafted_headers_are_an_error(kind, field, values, request, bodies):
    compressor, body = request.getfixturevalue(kind), bodies[kind]
    for value in values:
        header = list(HEADER.unpack_from(body))
        if value == header[field]:
            continue
        header[field] = value
        with pytest.raises(ValueError, match=r"^(data is damaged, although|the rows differ)"):
            compressor.decompress(sealed(HEADER.pack(*header) + body[HEADER.size :]))


def test_older_formats_are_refused(lossless):
    body = bytearray(lossless.compress(NEW[:3])[: -CHECKSUM.size])
    body[4] = 3
    with pytest.raises(ValueError, match="data has version 3 of the format; this release"):
        lossless.decompress(sealed(body))


def test_small_bytes_take_little_memory(lossless):
    """Neither a compressed section nor the number of rows makes megabytes of a few kilobytes."""
    body = lossless.compress(NEW[:3])[: -CHECKSUM.size]
    head, checksum = HEADER.unpack_from(body), body[-CHECKSUM.size :]
    zeros, bombs = bytes(4 * 10**6), []
    images = [io.BytesIO(), io.BytesIO()]
    for file, name in zip(images, ("PNG", "WEBP"), strict=True):
        Image.new("L", (3000, 3000)).save(file, name, lossless=True)
    for code in (
        bytes([3, 0]) + zlib.compress(bytes(1)) + images[0].getvalue(),
        bytes([4, 0]) + zlib.compress(bytes(1)) + images[1].getvalue(),
        bytes([4, 0]) + zlib.compress(bytes(1)) + b"no image",
        bytes([0, 0]) + zlib.compress(zeros, 9),
        bytes([1, 0]) + bz2.compress(zeros),
        bytes([2, 0]) + lzma.compress(zeros, lzma.FORMAT_RAW, filters=lzma_filters(0, len(zeros))),
    ):
        words = code + bytes(-len(code) % 4) + struct.pack("<I", 1)
        bombs.append(HEADER.pack(*head[:6], 0, len(words) // 4) + words + checksum)
    many = HEADER.pack(*head[:3], 2**20, *head[4:]) + body[HEADER.size :]
    for crafted in (*bombs, many):
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"^data is damaged, although") as caught:
            lossless.decompress(sealed(crafted))
        assert str(caught.value).count("damaged") == 1 and "object at" not in str(caught.value)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(crafted) < 40_000 and most < 4 * 10**6


def test_points_of_cells_take_little_memory(compressor, monkeypatch):
    """They are few at once, and rows are looked at once."""
    expected = compressor.decompress(compressor.compress(NEW, 20))
    sizes = []

    def counted(flow, x, gap, share, point_of_cell=Flow.point_of_cell):
        point, log_density = point_of_cell(flow, x, gap, share)
        sizes.append(point.numel())
        return point, log_density

    monkeypatch.setattr(Flow, "point_of_cell", counted)
    monkeypatch.setattr("skflows.compression._exact_rows.MOST_VALUES", 640)
    data = compressor.compress(NEW, 20)
    assert max(sizes) == 640 and sum(sizes) == N_POINTS * NEW.size
    sizes.clear()
    np.testing.assert_array_equal(compressor.decompress(data), expected)
    assert max(sizes) == 640 and sum(sizes) == N_POINTS * NEW.size


def test_checksum_includes_values_without_the_flow(lossless):
    some, others = (lossless.compress(np.full((1, 64), value)) for value in (1e300, 2e300))
    with pytest.raises(ValueError, match="the rows differ"):
        lossless.decompress(sealed(others[:-8] + some[-8:-4]))


SCRIPT = """
import sys, numpy, skflows
compressor = skflows.load(sys.argv[1])
data = open(sys.argv[2], "rb").read()
print(numpy.array_equal(compressor.decompress(data), numpy.load(sys.argv[3])))
"""


def test_other_instruction_sets_read_what_was_written(lossless, tmp_path):
    instructions = {
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Prescott",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "MKL_CBWR": "COMPATIBLE",
    }
    paths = [tmp_path / name for name in ("compressor.skflows", "rows.bin", "rows.npy")]
    rows = X[300:500]
    lossless.save(paths[0])
    paths[1].write_bytes(lossless.compress(rows))
    np.save(paths[2], rows)
    command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
    done = subprocess.run(
        command, env=os.environ | instructions, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


def test_many_rows_of_few_bits(compressor, monkeypatch):
    """They are padded, because few bytes may not claim many rows."""
    rows = np.repeat(NEW[:1], 1000, axis=0)
    alone = len(compressor.compress(rows, 0))
    monkeypatch.setattr("skflows.compression._compressor.FREE_VALUES", 1000)
    monkeypatch.setattr("skflows.compression._compressor.VALUES_PER_BYTE", 30)
    data = compressor.compress(rows, 0)
    assert alone < len(data) == HEADER.size + (64_000 - 1000) // 30 + 2 * CHECKSUM.size
    np.testing.assert_array_equal(
        compressor.decompress(data), np.repeat(compressor.decompress(data)[:1], 1000, axis=0)
    )
    body = data[: -CHECKSUM.size]
    content, end = body[: -CHECKSUM.size], body[-CHECKSUM.size :]
    for crafted in (content[:-1] + end, content + bytes(1) + end, content[:-1] + b"x" + end):
        with pytest.raises(ValueError, match=r"^data is damaged, although"):
            compressor.decompress(sealed(crafted))


def test_another_flow_is_an_error(compressor):
    other = FlowCompressor(RealNVPDensity(n_transforms=1, max_iter=1, random_state=0)).fit(X[:60])
    same = FlowCompressor(FrozenEstimator(compressor.estimator_)).fit(X)
    for each in (other, same):
        with pytest.raises(ValueError, match="another flow, or with one fitted to other rows"):
            each.decompress(compressor.compress(NEW[:2], 20))


def test_saved_compressor_reads_what_was_written(compressor, tmp_path):
    data = compressor.compress(NEW[:5], 20)
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
    whitened = RealNVPDensity(preprocessing=["quantile", "whiten"])
    for estimator in (whitened, CNFDensity()):
        with pytest.raises(TypeError, match=r"it must be one of \['GlowDensity', .*, without whit"):
            FlowCompressor(estimator).fit(X)
