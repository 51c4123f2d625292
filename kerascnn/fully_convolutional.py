"""A classifier as a fully convolutional network: larger pictures give a map of predictions.

A dense layer on a feature map is a convolution whose kernel is as large as the map.
Source: Fully Convolutional Networks for Semantic Segmentation, https://arxiv.org/abs/1411.4038, 3.1
"""

import keras
from keras import layers

from kerascnn.fold import ChannelAffine
from kerascnn.graph import copy_weights, functional, wiring

POOLINGS = {
    layers.GlobalAveragePooling2D: layers.AveragePooling2D,
    layers.GlobalMaxPooling2D: layers.MaxPooling2D,
}
# Layers of a head that treat every value alike, and those that treat every cell (its vector of features) alike.
PER_VALUE = (
    layers.Activation,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.ReLU,
)
PER_CELL = (
    layers.BatchNormalization,
    ChannelAffine,
    layers.LayerNormalization,
    layers.Rescaling,
    layers.Softmax,
)
OVER_ALL = (keras.activations.softmax, keras.activations.log_softmax)
Window = tuple[int, int]


def fully_convolutional(model: keras.Model) -> keras.Model:
    """The same classifier for pictures of any size: [N, height, width, C] gives logits [N, h, w, classes].

    Every head's last global pooling becomes a pooling with stride 1 over a window as large as the feature map at the
    model's own input size, or its `Flatten` goes; the dense layers after it become convolutions. Weights are copied,
    names and the form of the outputs kept. At the model's own size the map is 1 x 1 and equals the model's output. At
    a larger size a cell equals the model's output for the crop below it, in steps of the network's stride, if the
    network pads nothing: with padding the model sees zeros around the crop, the map sees the picture, and values
    differ at the crop's borders. A pooling inside the network (squeeze and excitation) stays over the whole picture.

    Args:
        model: A functional or sequential classifier of one fixed picture size, without nested models.

    Raises:
        ValueError: A part of the network has no convolutional equal.

    Source: https://arxiv.org/abs/1411.4038, 3.1

    >>> import kerascnn, numpy
    >>> model = fully_convolutional(kerascnn.build("resnet9", (32, 32, 3), 10, width=0.125))
    >>> tuple(model(numpy.zeros((1, 64, 48, 3))).shape)
    (1, 5, 3, 10)
    """
    plain = functional(model)
    if len(plain.inputs) != 1 or len(plain.inputs[0].shape) != 4 or None in plain.inputs[0].shape[1:]:
        raise ValueError(
            "The network needs one input of a fixed size (height, width, channels), the size that one cell of the map "
            f"will see. Received: {[tuple(tensor.shape[1:]) for tensor in plain.inputs]}."
        )
    windows = _windows(plain)

    def clone(layer: layers.Layer) -> layers.Layer:
        own = {"name": layer.name, "dtype": layer.dtype_policy} if layer.name in windows else {}
        window = windows.get(layer.name)
        if window and type(layer) in POOLINGS:
            return POOLINGS[type(layer)](window, strides=1, **own)
        if window and isinstance(layer, layers.Flatten):
            return layers.Identity(**own)
        if window and isinstance(layer, layers.Dense):
            keep = {"activation": layer.activation, "use_bias": layer.use_bias, "trainable": layer.trainable}
            return layers.Conv2D(layer.units, window, **keep, **own)
        return type(layer).from_config(layer.get_config())

    given = plain.inputs[0]
    larger = keras.Input((None, None, given.shape[-1]), dtype=given.dtype, name=given.name)
    structure = keras.tree.map_structure(lambda _: larger, plain.input)
    converted = keras.models.clone_model(plain, structure, clone)
    fixed = [tensor.name for tensor in converted.outputs if tuple(tensor.shape[1:3]) != (None, None)]
    if fixed:
        raise ValueError(
            f"A layer of fixed size remains before {fixed}. Use a global pooling or `Flatten`, then Dense."
        )
    for layer in plain.layers:
        if not isinstance(layer, layers.InputLayer):
            copy_weights(layer.get_weights(), converted.get_layer(layer.name))
    return converted


def _windows(model: keras.Model) -> dict[str, Window]:
    """The layers of the heads, in order: the part of the feature map (height, width) that each must look at."""
    sources, outputs = wiring(model)
    by_name = {operation.name: operation for operation in model.operations}
    members: set[str] = set()
    for output in outputs:
        _collect(output, by_name, sources, members)

    looks: dict[str, Window] = {}
    flattened: dict[str, Window] = {}  # what a layer hands on: the map that is still laid out in its features
    for name, layer in by_name.items():
        if name not in members:
            if isinstance(layer, keras.Model):
                raise ValueError(f"The network has a nested model, {name!r}. Build it of layers.")
            continue
        before, shape = sources[name][0]
        if len(sources[name]) != 1:
            raise ValueError(f"Layer {name!r} of a head must be called once, on one tensor.")
        height, width = flattened.get(before, (1, 1))
        if type(layer) in POOLINGS or (isinstance(layer, layers.Flatten) and before not in members):
            height, width = _map_size(layer, shape)
        _check(layer, (height, width))
        looks[name] = (height, width)
        flattened[name] = (1, 1) if type(layer) in POOLINGS or isinstance(layer, layers.Dense) else (height, width)
    unread = [output for output in outputs if flattened[output] != (1, 1)]
    if unread:
        raise ValueError(f"Output {unread} is a flattened feature map; expected a dense layer after `Flatten`.")
    return looks


def _collect(name: str, by_name: dict, sources: dict, members: set[str]) -> None:
    """Walk from an output back to its global pooling or `Flatten`."""
    layer = by_name[name]
    if isinstance(layer, layers.InputLayer):
        raise ValueError(
            "No global pooling and no `Flatten` between the feature map and the output: expected a classifier that "
            "ends in GlobalAveragePooling2D, GlobalMaxPooling2D or Flatten, then dense layers."
        )
    members.add(name)
    if type(layer) in POOLINGS:
        return
    for before, _ in sources[name]:
        # Flattening what a global pooling gives is no reading of a map.
        if not isinstance(layer, layers.Flatten) or type(by_name[before]) in POOLINGS:
            _collect(before, by_name, sources, members)


def _map_size(layer: layers.Layer, shape: tuple) -> Window:
    if len(shape) != 4 or None in shape[1:3] or layer.data_format != "channels_last":
        raise ValueError(f"Layer {layer.name!r} must take a map (height, width, channels). Received: {shape[1:]}.")
    return shape[1], shape[2]


def _check(layer: layers.Layer, window: Window) -> None:
    """A layer of a head must do to every cell of a map what it does to one vector."""
    if type(layer) in POOLINGS or isinstance(layer, layers.Flatten | layers.Dense):
        return
    whole = window == (1, 1)
    per_value = isinstance(layer, PER_VALUE) and (whole or getattr(layer, "activation", None) not in OVER_ALL)
    per_cell = isinstance(layer, PER_CELL) and whole and getattr(layer, "axis", -1) in (-1, [-1])
    if not per_value and not per_cell:
        kind = type(layer).__name__
        where = "" if whole else f" on a flattened map of {window[0]} x {window[1]}"
        raise ValueError(f"{kind} {layer.name!r}{where} in a head has no convolutional equal. Take it out of the head.")
