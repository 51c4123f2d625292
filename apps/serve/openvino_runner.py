"""Computes a SavedModel with OpenVINO, which is several times faster than TensorFlow on most CPUs."""

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from apps.serve.errors import Code, Refusal
from apps.serve.processor import cores
from apps.serve.servable import BYTES, DECODE, DEFAULT, EXPLAIN, SIZED
from apps.serve.signature import Signature
from apps.serve.tensorflow_runner import TensorFlowRunner, give_memory_back, plain_message

LOG = logging.getLogger(__name__)
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # ours: OpenVINO's
# What OpenVINO computes in just these types; it would narrow 64-bit numbers without a word.
TYPES_IN, TYPES_OUT = (np.dtype("float32"), np.dtype("uint8")), (np.dtype("float32"),)


def convert(runner: TensorFlowRunner, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """The signatures that OpenVINO can compute, converted (`openvino.Model`), by name.

    Those that decode or resize pictures are left to TensorFlow, as are types that OpenVINO would narrow, functions that
    change variables, and whatever its converter does not know. The models share their weights with `runner`'s.
    """
    import openvino

    converted = {}
    for name, signature in signatures.items():
        if not _may_be_converted(signature, signatures) or _writes(runner.functions[name]):
            continue
        try:
            model = openvino.convert_model(runner.functions[name])
            _check_interface(model, signature)
        except Exception as error:  # the converter raises its own, RuntimeError, AssertionError and others
            LOG.info("OpenVINO cannot compute the signature %s: %s", name, plain_message(error))
            continue
        converted[name] = model
    return converted


def _may_be_converted(signature: Signature, signatures: Mapping[str, Signature]) -> bool:
    resizes = signature.name == DEFAULT and SIZED in signatures
    return (
        signature.name not in (BYTES, DECODE, EXPLAIN)
        and not resizes
        and bool(signature.inputs)
        and signature.batched
        and all(spec.dtype in TYPES_IN for spec in signature.inputs.values())
        and all(spec.dtype in TYPES_OUT for spec in signature.outputs.values())
    )


def _writes(function: Any) -> bool:
    """Whether it changes variables or tables, which a converted graph would hold as constants."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return any(node.op.startswith(("Assign", "LookupTableInsert", "LookupTableImport")) for node in nodes)


def _check_interface(model: Any, signature: Signature) -> None:
    """Raise where the converted model's inputs and outputs cannot be told apart by the signature's names."""
    for ports, specs in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        names = [sorted(port.get_names() & specs.keys()) for port in ports]
        if sorted(name for found in names for name in found) != sorted(specs) or any(len(n) != 1 for n in names):
            raise ValueError(f"its names are {[sorted(port.get_names()) for port in ports]}, not {sorted(specs)}")
        for port, (name,) in zip(ports, names, strict=True):
            if np.dtype(port.element_type.to_dtype()) != specs[name].dtype:
                raise ValueError(f"{name} is {port.element_type.to_dtype()}, not {specs[name].dtype}")


class _Compiled:
    """One signature; called from several threads at once, each with a request of its own."""

    def __init__(self, model: Any, precision: str, signature: Signature) -> None:
        import openvino

        # Batches of any size in one compiled model: one for each size is 2 to 14 % faster for 1 row and 0 to 5 % for
        # 32, but keeps its weights once for each. One stream of all cores, since batches make work for all of them.
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": cores(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", options)
        self._outputs = list(signature.outputs)
        self._idle: deque[Any] = deque()  # as many as threads have called at the same time

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        # Shared: not copied on the way in. A request that once got a shared array must get one each time, for its own
        # memory is that array's then.
        request.infer(dict(inputs), share_inputs=True)
        outputs = {name: request.get_tensor(name).data.copy() for name in self._outputs}
        self._idle.append(request)  # not after an error
        return outputs


class OpenVINORunner:
    """A `Runner` of a SavedModel: what was converted by OpenVINO, the other signatures by TensorFlow.

    Args:
        models: From `convert`.
        signatures: Of the SavedModel.
        tensorflow: The same SavedModel; belongs to this runner, which closes it, when it is chosen.
        precision: What is computed in: "float32" or "bfloat16"; inputs and outputs stay as the signature says.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        signatures: Mapping[str, Signature],
        tensorflow: TensorFlowRunner,
        precision: str = "float32",
    ) -> None:
        self.name = f"openvino {precision}"
        self._tensorflow = tensorflow
        self._compiled = {name: _Compiled(model, precision, signatures[name]) for name, model in models.items()}

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a signature; blocks."""
        compiled = self._compiled.get(signature)
        if compiled is None:
            return self._tensorflow.run(signature, inputs)
        try:
            return compiled(inputs)
        except MemoryError as error:
            raise Refusal(Code.RESOURCE_EXHAUSTED, "The model ran out of memory.") from error
        except Exception as error:
            return self._explained(signature, inputs, error)

    def _explained(self, signature: str, inputs: Mapping[str, np.ndarray], error: Exception) -> dict[str, np.ndarray]:
        """What TensorFlow says to the same: its words for a client's mistake, or the answer that OpenVINO owed."""
        answer = self._tensorflow.run(signature, inputs)
        LOG.warning("OpenVINO failed in signature %s, TensorFlow did not: %s", signature, plain_message(error))
        return answer

    def close(self) -> None:
        """Give memory back."""
        self._compiled.clear()  # first: its weights are TensorFlow's
        self._tensorflow.close()
        give_memory_back()
