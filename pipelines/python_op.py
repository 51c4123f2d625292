"""Python functions in TensorFlow's graphs, under names that hold in every process that imports them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import script_ops


class PythonOp:
    """A function of arrays, defined at the top of a module, as an operation of a graph; a decorator.

    `tf.numpy_function` gives each function a number, by which another process that runs the graph finds none or another
    one. This enters the function into the same table of TensorFlow (not a public one) by module and name.
    """

    def __init__(self, function: Callable[..., np.ndarray]) -> None:
        self._function = function  # the table does not keep it alive
        self._name = f"{function.__module__}.{function.__qualname__}"
        script_ops._py_funcs._funcs[self._name] = function

    def __call__(self, inputs: Sequence[Any], dtype: tf.DType) -> tf.Tensor:
        """Its result, of this dtype and of no known shape."""
        return tf.raw_ops.PyFuncStateless(input=list(inputs), token=self._name, Tout=[dtype])[0]


def unnamed_functions(graph: tf.Graph) -> list[str]:
    """The graph's operations that call a Python function of this process alone."""
    calls = [one for one in graph.get_operations() if one.type in ("PyFunc", "PyFuncStateless", "EagerPyFunc")]
    return [one.name for one in calls if one.get_attr("token").startswith(b"pyfunc_")]
