"""LeNet-5. Gradient-Based Learning Applied to Document Recognition, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf

Differs from the paper: every map of the second convolution sees all six of the first, pooling has no weights, and the
output is linear instead of radial basis functions.
"""

import keras
from keras import layers

from kerascnn.blocks import Net, check_size
from kerascnn.registry import Network, register


def lenet5(net: Net, x: keras.KerasTensor) -> keras.KerasTensor:
    """Two convolutions with pooling, two dense layers; 32x32 pixels in the paper."""
    check_size(x, 16, "lenet5", fixed=True)
    for number, filters in ((1, 6), (2, 16)):
        x = net.conv_norm_act(x, net.filters(filters), 5, padding="valid", name=f"conv{number}")
        x = layers.AveragePooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, units in ((1, 120), (2, 84)):
        x = net.dense(x, net.filters(units), name=f"dense{number}")
        x = net.activate(x, name=f"dense{number}_act")
    return net.lose(x)


# LeCun's initialisation belongs to tanh and inputs of unit variance (Efficient BackProp, section 4.6).
# Parameters for one channel, layer by layer: 156 + 2,416 + 48,120 + 10,164 + 850.
OPTIONS = {"activation": "tanh", "norm": "none", "initializer": "lecun_normal"}
register("lenet5", Network(lenet5, 61_706, classes=10, input_shape=(32, 32, 1), options=OPTIONS))
