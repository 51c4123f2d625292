"""Looking inside a trained classifier: one file for each method, each a function on plain arrays; and their page.

>>> import kerascnn, numpy
>>> network = open_network(kerascnn.build("lenet5", (16, 16, 3), {"shape": 3}), {"shape": ["disc", "ring", "star"]})
>>> pictures = numpy.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("uint8")
>>> class_maps(network, pictures, {"shape": numpy.array([0, 2])})["shape"].shape
(2, 16, 16)
"""

from apps.explain.exciting import most_exciting
from apps.explain.filters import describe_filters
from apps.explain.grad_cam import class_maps
from apps.explain.maps import feature_maps, strongest_channels
from apps.explain.maximisation import Target, colours_of, maximise, maximise_beyond, target_values
from apps.explain.network import Network, open_network
from apps.explain.occlusion import occlusion_maps
from apps.explain.receptive import Box, receptive_box
from apps.explain.units import hidden_units

__all__ = [
    "Box",
    "Network",
    "Target",
    "class_maps",
    "colours_of",
    "describe_filters",
    "feature_maps",
    "hidden_units",
    "maximise",
    "maximise_beyond",
    "most_exciting",
    "occlusion_maps",
    "open_network",
    "receptive_box",
    "strongest_channels",
    "target_values",
]
