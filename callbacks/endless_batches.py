"""Endless batches from what `fit` takes, read without a trace: whoever reads the data next finds them as before."""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from itertools import count
from typing import Any

import keras
import numpy as np


@contextlib.contextmanager
def endless_batches(data: Any, batch_size: int) -> Iterator[Iterator[tuple[Any, ...]]]:
    """Give endless batches `(x, y)` or `(x, y, sample_weight)`; afterwards the seeds in a Dataset are as before.

    Args:
        data: Arrays, or batches in a list, a PyDataset or a tf.data Dataset, or a function that makes one.
        batch_size: Of arrays.

    Raises:
        ValueError: The data are of another kind, or would not give the same batches once more.
    """
    called = callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__")
    made = data() if called else data
    if not called:
        _refuse_memory(made)
    seeds = [(variable, variable.numpy()) for variable in _variables_of(made)]
    batches = batches_of(made, batch_size)
    try:
        yield batches
    finally:
        batches.close()
        for variable, value in seeds:
            variable.assign(value)


def batches_of(data: Any, batch_size: int) -> Generator[tuple[Any, ...], None, None]:
    """Endless batches of arrays, of a list, a PyDataset or a tf.data Dataset."""
    if isinstance(data, tuple) and len(data) in (2, 3):
        return _of_arrays(data, batch_size)
    if isinstance(data, type | str | Mapping) or not (hasattr(data, "__getitem__") or hasattr(data, "__iter__")):
        raise ValueError(
            "`data` must be arrays `(x, y)`, batches of them in a list, a PyDataset or a tf.data Dataset, or a "
            f"function that makes one. Received a {type(data).__name__}: {str(data)[:60]}."
        )
    return _again_and_again(data)


def _of_arrays(arrays: tuple[Any, ...], batch_size: int) -> Generator[tuple[Any, ...], None, None]:
    if batch_size % 1 != 0 or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number, at least 1. Received: batch_size={batch_size}.")
    lengths = [len(array) for array in keras.tree.flatten(arrays) if array is not None]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(f"The arrays of `data` must have as many entries, at least 1. Received: {lengths} entries.")
    return _drawn(arrays, lengths[0], min(int(batch_size), lengths[0]))


def _drawn(arrays: tuple[Any, ...], examples: int, size: int) -> Generator[tuple[Any, ...], None, None]:
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(examples)
        for begin in range(0, examples - size + 1, size):
            index = order[begin : begin + size]
            yield keras.tree.map_structure(lambda array, index=index: np.asarray(array)[index], arrays)


def _again_and_again(data: Any) -> Generator[tuple[Any, ...], None, None]:
    while True:
        empty = True
        for batch in _once(data):
            empty = False
            if not (isinstance(batch, tuple | list) and len(batch) in (2, 3)):
                raise ValueError(
                    "Every batch of `data` must be a tuple `(x, y)` or `(x, y, sample_weight)`. Received a "
                    f"{type(batch).__name__}. Whole arrays are given as one tuple `(x, y)`."
                )
            yield tuple(
                batch if keras.backend.backend() == "tensorflow" else keras.tree.map_structure(_as_numpy, batch)
            )
        if empty:
            raise ValueError("`data` has no more batches. Give a list of batches, or a function that makes them anew.")


def _once(data: Any) -> Iterator[Any]:
    if hasattr(data, "__iter__") and not isinstance(data, keras.utils.PyDataset):
        yield from data
    else:  # a PyDataset may have no end of its own
        length = data.num_batches if isinstance(data, keras.utils.PyDataset) else len(data)
        for number in count() if length is None else range(length):
            yield data[number]


def _as_numpy(part: Any) -> Any:
    """TensorFlow's tensors as arrays, which every backend takes."""
    return part.numpy() if hasattr(part, "numpy") else part


def _datasets(data: Any) -> Iterator[Any]:
    """A tf.data Dataset and all that it reads from; nothing where `data` is none."""
    seen, waiting = set(), [data]
    while waiting:
        dataset = waiting.pop()
        if id(dataset) not in seen and hasattr(dataset, "_inputs"):
            seen.add(id(dataset))
            waiting.extend(dataset._inputs())
            yield dataset


def _variables_of(data: Any) -> list[Any]:
    """TensorFlow's variables in the functions of a Dataset, such as the seeds of the Keras layers called there."""
    functions = [one.function for dataset in _datasets(data) for one in dataset._functions()]
    found = [variable for one in functions for variable in getattr(one, "variables", ())]
    return list({id(variable): variable for variable in found}.values())


def _refuse_memory(data: Any) -> None:
    """Raise for data that remember how far they were read."""
    if hasattr(data, "__next__"):
        raise ValueError(
            "`data` is an iterator, whose batches would be missing in the training. Give a function that makes it anew."
        )
    for dataset in _datasets(data):
        if "Shuffle" in type(dataset).__name__ and getattr(dataset, "_reshuffle_each_iteration", True) is not False:
            raise ValueError(
                "`data` shuffles anew every time it is read, so reading it here would change the order of the "
                "training. Give a function that makes the Dataset anew."
            )
