"""Learning to upsample: networks whose answer is a picture.

>>> from kerascnn import decoders
>>> decoders.segmentation((64, 48, 3), num_classes=2, width=0.25).output_shape
(None, 64, 48, 2)
"""

from kerascnn.autoencoder import autoencoder, decoder, encoder
from kerascnn.dcgan import DCGAN, dcgan, dcgan_discriminator, dcgan_generator
from kerascnn.segmentation import segmentation
from kerascnn.super_resolution import super_resolution
from kerascnn.upsampling import ICNR, DepthToSpace, Unpool

__all__ = [
    "DCGAN",
    "ICNR",
    "DepthToSpace",
    "Unpool",
    "autoencoder",
    "dcgan",
    "dcgan_discriminator",
    "dcgan_generator",
    "decoder",
    "encoder",
    "segmentation",
    "super_resolution",
]
