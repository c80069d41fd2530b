"""The commands ``skflows compress`` and ``skflows decompress``."""

import io
import json
import sys
import zipfile

import numpy as np

from ..columns.arrays import EXACT, listed, row_shape
from ..compression import FlowCompressor
from ..density import GlowDensity, NSFDensity
from ..persistence.atomic import replace_file
from ._columns import numbers, select
from ._forms import form_of, set_form
from ._model_files import load_model
from ._progress import fit_with_progress
from ._tables import (
    PARTS,
    check_writable,
    is_standard,
    natural_order,
    new_folder,
    one_line,
    open_table,
    say,
    shown,
    standard_input,
    write_table,
)

SUFFIXES = ".png", ".bmp", ".pgm", ".ppm"  # of images without loss
MODES = {"L": 1, "RGB": 3}  # with the number of channels
SETTINGS = {"dropout": 0.0, "learning_rate_init": 4e-3, "contamination": None}
OF_IMAGES = {"n_transforms": 3, "hidden_layer_sizes": (32, 32), "batch_size": 32}
OPTIONS = "max_iter", "time_limit", "random_state"  # of a new model
NAMES, ROWS = "names.json", "rows"  # in a file of images, which is a zip archive
MOST_NAMES = 2**26  # bytes


def run_compress(args):
    """Write images or a table of whole numbers without loss, by a model that may be new."""
    check_writable(args.output, args.data, args.model)
    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    is_new, interrupted = not args.model.exists(), False
    if is_new:
        check_writable(args.model, args.data)
    elif options:
        option = f"--{next(iter(options)).replace('_', '-')}"
        raise ValueError(f"{option} is for a new model, but {args.model} exists: leave out one")
    else:
        compressor = load_compressor(args)
    if are_images := args.data.is_dir():
        names, X = read_images(args.data)
        flow = GlowDensity(image_shape=X.shape[1:], **SETTINGS, **OF_IMAGES)
    else:
        table = open_table(args.data, args.sep, args.decimal)
        X = whole_numbers(table.read(), args.data)
        flow = NSFDensity(discrete=[*range(X.shape[1])], **SETTINGS)
    if is_new:
        compressor = FlowCompressor(flow.set_params(**options), lossless=True)
        interrupted = fit_with_progress(compressor, X)
        if not are_images:
            set_form(compressor, table.form)
        compressor.save(args.model)
        size = args.model.stat().st_size
        say(f"wrote {args.model}: {size} bytes, which skflows decompress needs", args.output)
    check_like_fit(X, compressor, args)
    data = compressor.compress(X if are_images else X[compressor.feature_names_in_])
    if are_images:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(NAMES, json.dumps(names), zipfile.ZIP_DEFLATED)
            archive.writestr(ROWS, data)
        data = file.getvalue()
    if is_standard(args.output):
        sys.stdout.buffer.write(data)
    else:
        with replace_file(args.output) as file:
            file.write(data)
    what = f"{len(X)} {'images' if are_images else 'rows'}"
    rate = f"{8 * len(data) / np.size(X):.3g} bits a value"
    say(f"wrote {shown(args.output)}: {len(data)} bytes for {what}, {rate}", args.output)
    return interrupted


def run_decompress(args):
    """Write the images or the table that `run_compress` stored."""
    compressor = load_compressor(args)
    shape = row_shape(compressor.estimator_)
    check_writable(args.output if shape is None else args.output / PARTS, args.data, args.model)
    data = standard_input().read() if is_standard(args.data) else args.data.read_bytes()
    if shape is None:
        rows = compressor.decompress(data).astype(np.int64)
        columns = dict(zip(compressor.feature_names_in_, rows.T, strict=True))
        write_table(columns, args.output, form_of(compressor))
        say(f"wrote {shown(args.output)}: {len(rows)} rows", args.output)
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.getinfo(NAMES).file_size > MOST_NAMES:
                raise ValueError("its names are too long")
            names, data = json.loads(archive.read(NAMES)), archive.read(ROWS)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{args.data} has no images of skflows: {one_line(error)}") from error
    images = compressor.decompress(data).reshape(-1, *shape).astype(np.uint8)
    are_plain = isinstance(names, list) and all(isinstance(n, str) and is_plain(n) for n in names)
    if not are_plain or len(set(names)) != len(images):
        raise ValueError(f"{args.data} is damaged: its images have other names")
    with new_folder(args.output) as folder:
        for name, image in zip(names, images, strict=True):
            pillow().fromarray(image[..., 0] if shape[2] == 1 else image).save(folder / name)
    say(f"wrote {args.output}: {len(images)} images")


def load_compressor(args):
    """Return the stored compressor of a command."""
    return load_model(args, FlowCompressor, "estimator_")


def check_like_fit(X, compressor, args):
    """Raise an error if images or a table have another form than the rows of the model's fit."""
    shape = row_shape(compressor.estimator_)
    if isinstance(X, np.ndarray) != (shape is not None):
        raise ValueError(
            f"{args.model} compresses {'tables' if shape is None else 'images'}: give --model "
            "another file, which need not exist yet"
        )
    if shape is not None and X.shape[1:] != shape:
        given, fitted = (f"{h} x {w} pixels of {c} channels" for h, w, c in (X.shape[1:], shape))
        raise ValueError(f"{args.data} has images of {given}, {args.model} compresses {fitted}")
    if shape is None:
        select(X, compressor.feature_names_in_, args.data)
        if more := [name for name in X if name not in compressor.feature_names_in_]:
            raise ValueError(
                f"{args.data} has columns that {args.model} lacks, {listed(more)}: leave them out"
            )


def whole_numbers(frame, path):
    """Return a table in float64, or raise an error if there are other values."""
    frame = numbers(frame, path, "only whole numbers can be compressed")
    for name in frame:
        is_other = (frame[name] % 1 != 0) | (frame[name].abs() > EXACT)
        if is_other.any():
            raise ValueError(
                f"{path} has {frame[name][is_other.idxmax()]:.17g} in column {name!r}, row "
                f"{is_other.argmax() + 1}: only whole numbers up to 2**53 can be compressed"
            )
    return frame


def is_plain(name):
    """Return whether a name is of an image in a folder itself, and not a hidden one."""
    return name.lower().endswith(SUFFIXES) and name[0] != "." and not set(name) & {*"/\\:\0"}


def read_images(folder):
    """Return the names and the pixels of the images of a folder."""
    files = sorted((file for file in folder.iterdir() if file.name[0] != "."), key=natural_order)
    images = []
    for file in files:
        if not (is_plain(file.name) and file.is_file()):
            raise ValueError(f"{file} is no image: {folder} may only have {', '.join(SUFFIXES)}")
        try:
            with pillow().open(file) as image:
                mode, pixels = image.mode, np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"cannot read {file}: {one_line(error)}") from error
        if mode not in MODES:
            raise ValueError(
                f"{file} has pixels of mode {mode!r}: convert the images to grey (L) or RGB, with "
                "8 bits a channel"
            )
        images.append(pixels.reshape(*pixels.shape[:2], MODES[mode]))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"{file} has the shape {images[-1].shape}, {files[0]} has {images[0].shape}: all "
                "images must have one"
            )
    if len(images) < 2:
        raise ValueError(f"{folder} has {len(images)} images: at least 2 are needed")
    return [file.name for file in files], np.stack(images).astype(np.float64)


def pillow():
    """Return ``PIL.Image``, or raise an error that says how to install it."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading and writing images needs Pillow: pip install pillow") from None
    return Image
