"""The commands ``skflows compress`` and ``skflows decompress``."""

import io
import json
import reprlib
import sys
import zipfile

import numpy as np

from ..columns.arrays import EXACT, listed, row_shape
from ..compression import FlowCompressor
from ..compression._images import pillow
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
    reading,
    say,
    shown,
    standard_input,
    write_table,
)

SUFFIXES = ".png", ".bmp", ".pgm", ".ppm"  # of images without loss
OTHER_SUFFIXES = ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff"  # of images that are refused
SUFFIX = ".skfc"  # of compressed files
MODES = {"L": 1, "RGB": 3}  # with the number of channels
SETTINGS = {"dropout": 0.0, "learning_rate_init": 4e-3, "contamination": None}
OF_IMAGES = {"n_transforms": 3, "hidden_layer_sizes": (32, 32), "batch_size": 32}
OPTIONS = "max_iter", "time_limit", "random_state"  # of a new model
NAMES, ROWS = "names.json", "rows"  # in a file of images, which is a zip archive
MOST_NAMES = 2**26  # bytes
COMPRESS_AGAIN = "it is damaged; compress the images again"


def run_compress(args):
    """Write images or a table of whole numbers without loss, by a model that may be new."""
    output = output_file(args)
    is_new_folder = args.output.name == PARTS and not output.parent.exists()
    check_writable(output.parent if is_new_folder else output, args.data, args.model)
    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    compressor, interrupted = stored_compressor(args, options), False
    form = None
    if args.data.is_dir():
        names, X = read_images(args.data)
    else:
        X, form = read_whole_numbers(args)
    is_new = compressor is None
    if is_new:
        compressor, interrupted = new_compressor(args, X, form, options)
    check_like_fit(X, compressor, args)
    if form is None:
        data, unit = packed(names, compressor.compress(X)), "image"
    else:
        data, unit = compressor.compress(X[compressor.feature_names_in_]), "row"
    if is_standard(output):
        sys.stdout.buffer.write(data)
    else:
        if is_new_folder:
            output.parent.mkdir(exist_ok=True)
        with replace_file(output) as file:
            file.write(data)
    rate = f"{8 * len(data) / np.size(X):.3g} bits a value"
    if is_new:
        rate += f" (the model was fitted to these {unit}s: new ones may need more)"
    size = f"{len(data)} bytes for {counted(len(X), unit)}"
    say(f"wrote {shown(output)}: {size}, {rate}", output)
    return interrupted


def run_decompress(args):
    """Write the images or the table that `run_compress` stored."""
    compressor = load_compressor(args)
    shape = row_shape(compressor.estimator_)
    target = args.output.parent if args.output.name == PARTS else args.output
    if shape is not None and is_standard(target):
        raise ValueError(f"{args.model} restores images in a folder: give one, not standard output")
    if shape is not None and target is args.output and target.suffix and not target.is_dir():
        raise ValueError(
            f"{target} is the name of a file, but {args.model} restores images in a folder: give "
            f"{target}/"
        )
    check_writable(args.output if shape is None else target / PARTS, args.data, args.model)
    with reading(args.data, "compressed"):
        data = standard_input().read() if is_standard(args.data) else args.data.read_bytes()
    holds = {b"PK": "images", b"SK": "a table"}.get(data[:2])
    compresses = "a table" if shape is None else "images"
    if holds is None:
        raise ValueError(f"{args.data} was not written by skflows compress")
    if holds != compresses:
        raise ValueError(
            f"{args.data} holds {holds}, but {args.model} compresses {compresses}: give --model "
            f"the file by which {args.data} was compressed"
        )
    if shape is None:
        rows = compressor.decompress(data).astype(np.int64)
        columns = dict(zip(compressor.feature_names_in_, rows.T, strict=True))
        write_table(columns, args.output, form_of(compressor))
        say(f"wrote {shown(args.output)}: {counted(len(rows), 'row')}", args.output)
        return
    names, rows = unpacked(data, args.data)
    images = compressor.decompress(rows).reshape(-1, *shape).astype(np.uint8)
    if len(names) != len(images):
        raise ValueError(
            f"{args.data} has {len(names)} names for {len(images)} images: {COMPRESS_AGAIN}"
        )
    with new_folder(target) as folder:
        for name, image in zip(names, images, strict=True):
            pillow().fromarray(image[..., 0] if shape[2] == 1 else image).save(folder / name)
    say(f"wrote {target}: {counted(len(images), 'image')}")


def output_file(args):
    """Return the file to write: in a folder, it has the name of the data."""
    folder = args.output.parent if args.output.name == PARTS else args.output
    if args.output.name != PARTS and not folder.is_dir():
        return args.output
    if is_standard(args.data):
        raise ValueError(f"{folder} is a folder, and standard input has no name: give a file")
    return folder / f"{args.data.resolve().stem}{SUFFIX}"


def stored_compressor(args, options):
    """Return the stored compressor, or None if there is no file, so that a new one is needed."""
    if not args.model.exists():
        check_writable(args.model, args.data)
        return None
    if options:
        option = f"--{next(iter(options)).replace('_', '-')}"
        raise ValueError(f"{option} is for a new model, but {args.model} exists: leave out one")
    return load_compressor(args)


def new_compressor(args, X, form, options):
    """Fit and store a compressor of a table, or of images if there is no form of a file.

    Return it, and whether Ctrl-C ended the fit.
    """
    if form is None:
        flow = GlowDensity(image_shape=X.shape[1:], **SETTINGS, **OF_IMAGES)
    else:
        flow = NSFDensity(discrete=[*range(X.shape[1])], **SETTINGS)
    if len(X) < 2:
        raise ValueError(
            f"{args.data} has only one {'image' if form is None else 'row'}, and there is no "
            f"{args.model} yet: a new model needs at least two"
        )
    compressor = FlowCompressor(flow.set_params(**options), lossless=True)
    interrupted = fit_with_progress(compressor, X)
    if form is not None:
        set_form(compressor, form)
    compressor.save(args.model)
    size = args.model.stat().st_size
    say(f"wrote {args.model}: {size} bytes, which skflows decompress needs", args.output)
    return compressor, interrupted


def counted(n, unit):
    """Return a number of images or rows as text."""
    return f"{n} {unit}{'' if n == 1 else 's'}"


def packed(names, rows):
    """Return the bytes of a zip archive of the names and the compressed pixels of images."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(NAMES, json.dumps(names), zipfile.ZIP_DEFLATED)
        archive.writestr(ROWS, rows, zipfile.ZIP_STORED)
    return file.getvalue()


def unpacked(data, path):
    """Return what `packed` was given, or raise an error if it did not write the file."""
    with reading(path, "compressed image"), zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry, method in (NAMES, zipfile.ZIP_DEFLATED), (ROWS, zipfile.ZIP_STORED):
            # Other methods may expand a few bytes without limit.
            if (given := archive.getinfo(entry).compress_type) != method:
                raise ValueError(f"{entry} has the compression method {given}, not {method}")
        with archive.open(NAMES) as file:
            text = file.read(MOST_NAMES + 1)
        if len(text) > MOST_NAMES:
            raise ValueError(f"{NAMES} has more than {MOST_NAMES} bytes")
        names, rows = json.loads(text), archive.read(ROWS)
        if not isinstance(names, list):
            raise ValueError(f"{NAMES} holds a {type(names).__name__}, not a list")
    seen = set()
    for name in names:
        if not (isinstance(name, str) and is_plain(name)):
            raise ValueError(
                f"{path} has {reprlib.repr(name)}, which is no name of an image: {COMPRESS_AGAIN}"
            )
        if name in seen:
            raise ValueError(
                f"{path} has two images with the name {reprlib.repr(name)}: {COMPRESS_AGAIN}"
            )
        seen.add(name)
    return names, rows


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


def read_whole_numbers(args):
    """Return a table in float64 and the form of its file; other values are an error."""
    path = args.data
    if path.is_file() and path.name.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES)):
        raise ValueError(f"{path} is an image: give a folder of images ({', '.join(SUFFIXES)})")
    table = open_table(path, args.sep, args.decimal)
    frame = numbers(table.read(), path, "only whole numbers can be compressed")
    for name in frame:
        is_other = (frame[name] % 1 != 0) | (frame[name].abs() > EXACT)
        if is_other.any():
            raise ValueError(
                f"{path} has {frame[name][is_other.idxmax()]:.17g} in column {name!r}, row "
                f"{is_other.argmax() + 1}: only whole numbers up to 2**53 can be compressed"
            )
    return frame, table.form


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
    if not images:
        raise ValueError(f"{folder} has no images")
    return [file.name for file in files], np.stack(images).astype(np.float64)
