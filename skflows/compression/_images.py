"""Images side by side in one PNG or WebP file, by Pillow where it is installed."""

import io
import math

import numpy as np

from ..columns.optional import optional
from ._checks import check

FORMATS = "PNG", "WEBP"
LONGEST = 2**14 - 1  # side of a WebP image
# The index of a format, settings, and the most pixels: Pillow warns of a little more than 2**26,
# and the slower settings take less than about a second.
SETTINGS: tuple = (0, {"optimize": True}, 2**26), (1, {}, 2**26)
SLOW_SETTINGS: tuple = (1, {"method": 6}, 2**18), (1, {"method": 6, "quality": 100}, 2**12)


def pillow():
    """Return ``PIL.Image``, or raise an error that says how to install it."""
    Image = optional("PIL.Image", "reading and writing images needs Pillow", "pillow")
    Image.init()  # its formats
    return Image


def layout(n, shape):
    """Return how many of n images are below each other and side by side.

    The whole is about a square, with a power of two side by side.
    """
    height, width, _ = shape
    across = min(2 ** max(math.ceil(math.log2(n * height / width) / 2), 0), n)
    return -(-n // across), across


def image_files(rows, shape, slowly):
    """Return files of images, each after the index of its format.

    There are none of rows that are not bytes of one or three channels. There are more of few
    pixels, by slower settings of WebP, if ``slowly``.
    """
    if rows.dtype != np.uint8 or shape is None or shape[2] not in (1, 3) or not len(rows):
        return []
    (down, across), (height, width, channels) = layout(len(rows), shape), shape
    sides = down * height, across * width
    if max(sides) > LONGEST:
        return []
    try:
        Image = pillow()
    except ImportError:
        return []
    tiles = np.zeros((down * across, *shape), dtype=np.uint8)
    tiles[: len(rows)] = rows.reshape(-1, *shape)
    pixels = tiles.reshape(down, across, *shape).swapaxes(1, 2).reshape(*sides, channels)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    files = []
    for i, given, most in SETTINGS + SLOW_SETTINGS if slowly else SETTINGS:
        # Pillow may be built without WebP.
        if math.prod(sides) <= most and FORMATS[i] in Image.SAVE:
            file = io.BytesIO()
            image.save(file, FORMATS[i], lossless=True, **given)
            files.append((i, file.getvalue()))
    return files


def rows_of_file(content, i, n, shape):
    """Return the bytes of the n images of a file, given the index of its format."""
    name = FORMATS[i]
    is_image = n > 0 and shape is not None and shape[2] in (1, 3)
    check(is_image, "it holds images, but its rows are none")
    Image = pillow()
    if name not in Image.SAVE:
        raise ImportError(f"data has an image in {name}, which this Pillow was built without")
    (down, across), (height, width, channels) = layout(n, shape), shape
    size = across * width, down * height
    if Image.MAX_IMAGE_PIXELS is not None and math.prod(size) > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"data has an image of {size[0]} x {size[1]} pixels, which Pillow refuses: increase "
            "PIL.Image.MAX_IMAGE_PIXELS."
        )
    try:
        with Image.open(io.BytesIO(content), formats=[name]) as image:
            is_right = image.size == size
            if is_right:
                pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (MemoryError, Warning):  # a filter may raise warnings
        raise
    except Exception:  # decoders of images raise many kinds
        check(False, f"its image in {name} cannot be read")
    check(is_right, "its image has another size")
    tiles = pixels.reshape(down, height, across, width, channels).swapaxes(1, 2)
    return tiles.reshape(down * across, -1)[:n].tobytes()
