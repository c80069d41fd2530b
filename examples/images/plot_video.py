"""
=========================
What comes next in videos
=========================

:class:`~skflows.VideoFlowDensity` learns how each frame of a video depends on the frames before it.
This example shows it digits that move and bounce, and lets it continue videos of other digits.
"""

# %%
# Videos
# ------
# Digits of 8 x 8 pixels move to the left or right through frames of 8 x 16, by a pixel a frame, and
# bounce. Two frames tell where a digit goes.
import numpy as np
from sklearn.datasets import load_digits

WIDTH, ROOM = 16, 16 - 8
images = load_digits().images


def videos(images, n, n_frames, seed):
    rng = np.random.default_rng(seed)
    frames = np.zeros((n, n_frames, 8, WIDTH, 1))
    for video, image in zip(frames, images[rng.integers(len(images), size=n)], strict=True):
        start, step = rng.integers(ROOM + 1), rng.choice([-1, 1])
        for t in range(n_frames):
            folded = (start + t * step) % (2 * ROOM)
            column = min(folded, 2 * ROOM - folded)
            video[t, :, column : column + 8, 0] = image
    return frames


train = videos(images[:1500], 600, n_frames=4, seed=0)
new = videos(images[1500:], 8, n_frames=10, seed=1)

# %%
# Fit
# ---
# Rows are windows of four frames. All methods take arrays of shape ``(n, frames, height, width,
# channels)``.
from skflows import GlowDensity, VideoFlowDensity

settings = {
    "n_transforms": 2,
    "preprocessing": "standardize",
    "n_bins": 6,
    "hidden_layer_sizes": (32, 32),
    "dropout": 0.0,
    "learning_rate_init": 8e-3,
    "contamination": None,
    "random_state": 0,
}
density = VideoFlowDensity(
    frame_shape=(8, WIDTH, 1), n_context_frames=2, batch_size=8, max_iter=18, **settings
).fit(train)
still = GlowDensity(image_shape=(8, WIDTH, 1), batch_size=32, max_iter=5, **settings)
still.fit(train.reshape(-1, 8, WIDTH, 1))

print("Bits per pixel of new videos, and of the same ones in another order:")
test = videos(images[1500:], 100, n_frames=4, seed=2)
for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
    print(f"{order}: {density.bits_per_dim(test[:, order]).mean():.3f}")
frames = test.reshape(-1, 8, WIDTH, 1)
print(f"frames on their own: {still.bits_per_dim(frames).mean():.3f}")

# %%
# Predict
# -------
# Two frames are given, and eight follow.
import matplotlib.pyplot as plt

follow = [
    density.predict_next(new[:, :2], n_steps=8, temperature=t, random_state=0) for t in (0.5, 0.8)
]
rows = [new, *(np.concatenate([new[:, :2], drawn], axis=1) for drawn in follow)]
titles = "true", "temperature 0.5", "temperature 0.8"

fig, axes = plt.subplots(3, 1, figsize=(8, 2.2), layout="constrained")
for ax, row, title in zip(axes, rows, titles, strict=True):
    ax.imshow(np.hstack(row[0, ..., 0]), cmap="gray")
    ax.set(xticks=[], yticks=[], title=title)


# %%
# Eight videos: the true ones at the top, predictions at the two temperatures below:
import base64
import io

from PIL import Image


class Animation:
    def __init__(self, frames, scale=4, milliseconds=400):
        pixels = np.clip(frames * 15, 0, 255).astype(np.uint8)
        pictures = [Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1)) for frame in pixels]
        file = io.BytesIO()
        pictures[0].save(
            file, "GIF", append_images=pictures[1:], save_all=True, duration=milliseconds, loop=0
        )
        self.data = base64.b64encode(file.getvalue()).decode()

    def _repr_html_(self):
        return f'<img alt="moving digits" src="data:image/gif;base64,{self.data}">'


parts = [np.concatenate(row[..., 0], axis=2) for row in rows]
framed = [np.pad(part, [(0, 0), (1, 1), (0, 0)], constant_values=8) for part in parts]
Animation(np.concatenate(framed, axis=1))

# %%
# Predictions drift with time: each frame is drawn given two frames that were drawn themselves.
# After so short a training, most digits move as they should and keep their shapes for some frames;
# later, some of them fade.
