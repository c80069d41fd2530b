"""
===================
Images in few bytes
===================

`FlowCompressor` writes many images like the images of its fit. This example compresses handwritten
digits, exactly and with loss, and shows them beside JPEG files of the same size. Needs
constriction: ``pip install skflows[compression]``.
"""

# %%
# Fit
# ---
# Images have 8 x 8 pixels with 17 grey levels. 1,400 of them train a Glow, the last 380 are new.
import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from skflows import FlowCompressor, GlowDensity

X = load_digits().data
train, new = X[:1400], X[1400:1780]
density = GlowDensity(
    image_shape=(8, 8, 1),
    n_transforms=3,
    hidden_layer_sizes=(32, 32),
    dropout=0.0,
    batch_size=32,
    learning_rate_init=4e-3,
    max_iter=8,
    random_state=0,
)
compressor = FlowCompressor(density).fit(train)


# %%
# Bytes
# -----
# JPEG gets all images side by side: each is one of its blocks. Errors are root mean squares, in
# grey levels. From a certain quality on, `FlowCompressor` is exact.
def side_by_side(rows):
    return rows.reshape(19, 20, 8, 8).swapaxes(1, 2).reshape(152, 160)


def jpeg(quality):
    file = io.BytesIO()
    pixels = np.rint(side_by_side(new) * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
    return file.tell(), np.asarray(Image.open(file), dtype=float) * 16 / 255


def error(pixels):
    return np.sqrt(((pixels - side_by_side(new)) ** 2).mean())


ours = {}
for quality in (0, 10, 20, 30, 40):
    data = compressor.compress(new, quality)
    pixels = side_by_side(compressor.decompress(data))
    ours[quality] = len(data), pixels
    print(f"FlowCompressor, quality {quality:2}: {len(data):6} bytes, error {error(pixels):.2f}")
others = {quality: jpeg(quality) for quality in range(1, 96)}
for quality in (5, 20, 50, 80, 95):
    size, pixels = others[quality]
    print(f"JPEG, quality {quality:2}: {size:16} bytes, error {error(pixels):.2f}")

# %%
# Pictures of the same size
# -------------------------
# The JPEG file is the largest one that is not larger than ours, or else the smallest one.
size, pixels = ours[20]
smaller = [each for each in others.values() if each[0] <= size] or [others[1]]
other_size, other = max(smaller, key=lambda each: each[0])
pictures = {
    "original": side_by_side(new),
    f"FlowCompressor, {size} bytes": pixels,
    f"JPEG, {other_size} bytes": other,
}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, (title, image) in zip(axes, pictures.items(), strict=True):
    ax.imshow(image[:64, :64], cmap="gray", vmin=0, vmax=16)
    ax.set(title=title, xticks=[], yticks=[])

# %%
# Photographs
# -----------
# Photographs are less alike than digits. Here a Glow of 3,000 crops of 16 x 16 pixels wrote one
# half of another photograph (``python benchmarks/compression.py crops --out FILE --qualities
# --picture PNG``), beside the largest files of JPEG and WebP that are no larger. All pixels are
# rounded by the same step, so dark parts lose their shades. WebP, with the smallest error, is the
# better choice.
#
# .. image:: /_static/compression_of_crops.png
#    :alt: A part of a photograph, and what three codecs make of it
