"""What a SavedModel's signatures take and give, read from its file without loading it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

INIT = "__saved_model_init_op"  # a signature without inputs that TensorFlow adds and TensorFlow Serving shows


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Args:
        name: As clients call it.
        dtype: Of NumPy; `object` for strings, whose elements are bytes.
        shape: None for a side of any length; the whole is None where not even the rank is known.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    @property
    def is_bytes(self) -> bool:
        """Whether its elements are byte strings."""
        return self.dtype == np.dtype(object)

    @property
    def is_pictures(self) -> bool:
        """Whether it takes a batch of pictures as pixels: numbers [N, height, width, 3]."""
        return not self.is_bytes and self.shape is not None and len(self.shape) == 4 and self.shape[-1] == 3


@dataclass(frozen=True)
class Signature:
    """A function that clients may call."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    definition: meta_graph_pb2.SignatureDef = field(repr=False, compare=False)

    @property
    def batched(self) -> bool:
        """Whether requests can be joined along the first side: inputs have one of any length, and outputs may have."""
        taken, given = self.inputs.values(), self.outputs.values()
        joined = bool(self.inputs) and all(spec.shape is not None and spec.shape[:1] == (None,) for spec in taken)
        return joined and all(spec.shape is None or spec.shape[:1] == (None,) for spec in given)


def read_signatures(saved_model: os.PathLike[str] | str) -> dict[str, Signature]:
    """The signatures of a SavedModel by name, without `__saved_model_init_op`.

    Raises:
        FileNotFoundError: There is no saved_model.pb.
        OSError: It cannot be read.
        ValueError: It is damaged, or was not saved for serving.
    """
    path = Path(saved_model, "saved_model.pb")
    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no saved_model.pb in version {Path(saved_model).name}.") from None
    except OSError as error:
        raise type(error)(f"saved_model.pb cannot be read: {error.strerror}") from error
    except Exception as error:
        raise ValueError(f"saved_model.pb is damaged: {error}") from error
    graphs = [graph for graph in content.meta_graphs if "serve" in graph.meta_info_def.tags]
    if not graphs:
        raise ValueError("saved_model.pb has no graph with the tag 'serve'.")
    return {
        name: Signature(name, _specs(definition.inputs), _specs(definition.outputs), definition)
        for name, definition in sorted(graphs[0].signature_def.items())
        if name != INIT
    }


def _specs(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorSpec]:
    return {name: _spec(name, info) for name, info in sorted(infos.items())}


def _spec(name: str, info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if side.size < 0 else int(side.size) for side in info.tensor_shape.dim)
    return TensorSpec(name, np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype), shape)


class Described(Protocol):
    """What clients know of a version."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """What can be called."""
        ...

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Class names by head."""
        ...


def same_interface(old: Described, new: Described) -> str | None:
    """Why a version cannot take another one's place: None where every client can go on, else one sentence."""
    for name, before in old.signatures.items():
        if name not in new.signatures:
            return f"There is no signature {name!r} any more."
        for side in ("inputs", "outputs"):
            specs = [getattr(signature, side).items() for signature in (before, new.signatures[name])]
            was, now = ({key: (spec.dtype, spec.shape and len(spec.shape)) for key, spec in items} for items in specs)
            if was != now:
                return f"The {side} of signature {name!r} are {sorted(now)} of other kinds or names than {sorted(was)}."
    if {head: list(names) for head, names in old.classes.items()} != {
        head: list(names) for head, names in new.classes.items()
    }:
        return "The classes are other ones."
    return None
