"""What computes a loaded version: the one thing that TensorFlow and OpenVINO have in common here."""

import difflib
import importlib.util
from collections.abc import Mapping
from typing import Protocol

import numpy as np

RUNNERS = ("auto", "tensorflow", "openvino")


class Runner(Protocol):
    """A loaded version that can be called from several threads at once.

    `run` gives the outputs of a signature by name, as NumPy arrays; what goes wrong is a `Refusal`: the client's data
    INVALID_ARGUMENT, no memory left RESOURCE_EXHAUSTED, everything else INTERNAL.
    """

    name: str

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a signature; blocks, so it belongs into a thread."""
        ...

    def close(self) -> None:
        """Give memory back; nothing is run afterwards."""
        ...


def check_runner_name(name: str) -> None:
    """Refuse a name for `Settings.runner` that is none, or whose library is not installed.

    Raises:
        ValueError: With near names, or with the command that installs it.

    >>> check_runner_name("auto")
    >>> check_runner_name("openvin")
    Traceback (most recent call last):
    ...
    ValueError: There is no runner "openvin". Did you mean openvino? There are: auto, tensorflow, openvino.
    """
    if name not in RUNNERS:
        near = difflib.get_close_matches(name, RUNNERS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f'There is no runner "{name}".{hint} There are: {", ".join(RUNNERS)}.')
    if name == "openvino" and not has_openvino():
        raise ValueError("The runner openvino is not installed; install it with: pip install 'kerascnn[openvino]'")


def has_openvino() -> bool:
    """Whether OpenVINO is installed; looks without importing it."""
    return importlib.util.find_spec("openvino") is not None
