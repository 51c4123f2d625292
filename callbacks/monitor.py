"""What happens inside a network while it trains: activations, gradients, updates, and warnings in words."""

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from callbacks.json_log import append_line, plain, rates_at, start_lines
from callbacks.plots import new_figure, save_figure
from callbacks.probe import Probe
from callbacks.rates import batches_seen
from callbacks.stateful import StatefulCallback
from callbacks.symptoms import AT_ONCE, Symptom, is_kernel, symptoms
from callbacks.updates import build_optimizer, parts_of
from callbacks.whole_file import writable_path

MOST_EXAMPLES = 64
TABLE = ("mean", "std", "zeros", "dead", "saturated", "correlation", "sparsity")


class Monitor(StatefulCallback):
    """Look into the network every so many batches; training is bit by bit the same without it.

    For every layer with weights or an activation: mean, standard deviation, percentiles (1, 25, 50, 75, 99) of its
    output, the fraction of exact zeros, of dead units (zero for every probe example and position) and of saturated
    outputs (tanh, sigmoid), the mean absolute correlation between its units, and their sparsity (0 to 1). For every
    weight: norm, and norm, mean, deviation and percentiles of its gradient on the probe batch; for every kernel the
    update ratio, `|after - before| / |before|`, of a real step of the training. Output and gradients are those before
    that step, the outputs as in inference, the gradients as in training. Of a layer with several outputs the first one
    counts.

    Correlation and sparsity look at 64 units of a layer at most, percentiles at some 30,000 values.

    Attributes:
        history: One dict for each sample: "step" (batches before it), "epoch", "examples", "learning_rate" (of the
            step; a list for a `MultiOptimizer`), and "layers".
        warnings: One dict for each thing said: "step", "kind", "layer", "text". Most things are said when they are
            found in two samples in a row, each once.
        seconds: Spent in looking since the training began or went on.

    Args:
        x: Inputs of the probe batch, as `fit` takes them; the first 64 examples are used.
        y: Their labels; without them there are no gradients.
        sample_weight: As in `fit`.
        every: Batches between samples. The first is before the first step; then at the first hook at or after each
            multiple, as the optimiser counts batches.
        layers: Names of the layers to look at ("outer/inner" in nested models); all where None.
        path: File for the history, one line of JSON for each sample.
        overwrite: Whether a new training may replace the file.

    Raises:
        ValueError: When training begins: the model is neither Functional nor Sequential, a name of `layers` is none,
            or the file has samples of a training before.

    Sources: https://cs231n.github.io/neural-networks-3/#baby, https://proceedings.mlr.press/v9/glorot10a.html
    """

    STATE = ("history", "warnings")

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        every: int = 50,
        layers: Sequence[str] | None = None,
        path: os.PathLike[str] | str | None = None,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1 batch. Received: every={every}.")
        self.batch = tuple(keras.tree.map_structure(_first, part) for part in (x, y, sample_weight))
        self.examples = len(keras.tree.flatten(self.batch[0])[0])
        if not self.examples:
            raise ValueError("`x` has no examples.")
        self.every, self.layers = every, None if layers is None else list(layers)
        self.path, self.overwrite = None if path is None else writable_path(path), overwrite
        self.seconds = 0.0
        self._probe: Probe | None = None
        self._compiled: Any = None

    def reset(self) -> None:
        """No sample yet."""
        self.history: list[dict[str, Any]] = []
        self.warnings: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Prepare the statistics and the file."""
        super().on_train_begin(logs)
        self.seconds = 0.0
        model = self.model
        if self._probe is None or self._compiled is not model._compile_config:
            self._probe, self._compiled = Probe(model, self.batch, self.layers), model._compile_config
        build_optimizer(model)
        self._window = max(part.gradient_accumulation_steps or 1 for part in parts_of(model.optimizer))
        self._next = -(-batches_seen(model.optimizer) // self.every) * self.every
        self._open: dict[str, Any] | None = None
        if self.path is not None:
            known = {record["step"] for record in self.history}
            start_lines(self.path, lambda line: line["step"] in known, not known, self.overwrite)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Where the epoch begins."""
        self._epoch, self._begin = epoch, batches_seen(self.model.optimizer)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Take a sample where one is due, and remember the weights before the step."""
        step = self._begin + batch
        if step < self._next or self._open is not None:
            return
        began = time.perf_counter()
        self._next = (step // self.every + 1) * self.every
        self._open = self._sample(step)
        self._before = dict(self._kernels())
        self.seconds += time.perf_counter() - began

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Compare the weights after the step; under gradient accumulation after the batches of one update."""
        if self._open is None:
            return
        done = self._begin + min(batch + 1, self.params.get("steps") or batch + 1) - self._open["step"]
        if done < self._window:
            return
        began, begin = time.perf_counter(), self._open["step"]
        updates = (begin + done) // self._window - begin // self._window
        for (layer, name), after in self._kernels():
            before = self._before[layer, name]
            size = float(np.linalg.norm(before))
            ratio = float(np.linalg.norm(after - before)) / size / updates if size else None
            self._open["layers"][layer]["weights"][name]["update_ratio"] = _short(plain(ratio))
        self._close()
        self.seconds += time.perf_counter() - began

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keep a sample whose update did not come any more."""
        if self._open is not None:
            self._close()

    def table(self) -> str:
        """The last sample as text, one line for each layer."""
        record = self._last()
        lines = [f"step {record['step']}, epoch {record['epoch']}, {record['examples']} examples"]
        width = max(len(layer) for layer in record["layers"])
        heads = (*TABLE, "gradient", "update")
        lines.append(" ".join(["layer".ljust(width), "function".ljust(11), *(head.rjust(11) for head in heads)]))
        for layer, numbers in record["layers"].items():
            activation = numbers["activation"]
            values = [*(activation[name] for name in TABLE), gradient_norm(numbers), update_ratio(numbers)]
            cells = ["-".rjust(11) if value is None else f"{value:11.3g}" for value in values]
            lines.append(" ".join([layer.ljust(width), activation["function"].ljust(11), *cells]))
        return "\n".join(lines)

    def plot(self, path: os.PathLike[str] | str | None = None) -> Any:
        """Deviation of the outputs, gradient norm, dead units and update ratio of every layer over the steps.

        Returns the matplotlib Figure, and writes it to `path` if given.
        """
        layers = list(self._last()["layers"])
        figure, axes = new_figure(9.0, 12.0, rows=4)
        import matplotlib

        curves = {
            "standard deviation of the output": lambda numbers: numbers["activation"]["std"],
            "norm of the gradient": gradient_norm,
            "update ratio": update_ratio,
            "dead units": lambda numbers: numbers["activation"]["dead"],
        }
        steps = [record["step"] for record in self.history]
        for axis, (title, value) in zip(axes, curves.items(), strict=True):
            for depth, layer in enumerate(layers):
                values = [value(record["layers"][layer]) for record in self.history]
                shown = [np.nan if one is None else one for one in values]
                colour = matplotlib.colormaps["viridis"](depth / max(len(layers) - 1, 1))
                if not np.all(np.isnan(shown)):
                    axis.plot(steps, shown, ".-", color=colour, label=layer, linewidth=1)
            axis.set(title=title, yscale="linear" if title == "dead units" else "log")
            axis.grid(alpha=0.3)
        axes[2].axhline(1e-3, color="0.5", linestyle="--", linewidth=1)
        axes[3].set(xlabel="step", ylim=(-0.05, 1.05))
        axes[0].legend(fontsize=6, ncols=max(1, len(layers) // 12), loc="center left", bbox_to_anchor=(1.0, 0.5))
        if path is not None:
            save_figure(figure, path)
        return figure

    def _sample(self, step: int) -> dict[str, Any]:
        """One record, all but the update ratios."""
        probe = self._require_probe()
        outputs, gradients = probe.measure(self.model)
        layers: dict[str, Any] = {
            name: {
                "head": name in probe.heads,
                "activation": {"function": probe.functions[name], **numbers},
                "weights": {},
            }
            for name, numbers in outputs.items()
        }
        for layer, name, weight in probe.weights:
            value = keras.ops.convert_to_numpy(weight)
            entry = {"shape": list(value.shape), "norm": float(np.linalg.norm(value)), "update_ratio": None}
            if gradients:
                entry["gradient"] = gradients[layer, name]
            layers[layer]["weights"][name] = entry
        rate = rates_at(self.model.optimizer, step)
        record = {"step": step, "epoch": self._epoch, "examples": self.examples, "learning_rate": rate}
        return dict(_short(plain({**record, "layers": layers})))

    def _kernels(self) -> list[tuple[tuple[str, str], np.ndarray]]:
        """Copies of the matrices and filters."""
        self.model  # noqa: B018  (on JAX this brings the weights up to date)
        return [
            ((layer, name), np.array(keras.ops.convert_to_numpy(weight)))
            for layer, name, weight in self._require_probe().weights
            if is_kernel(name, weight.shape)
        ]

    def _close(self) -> None:
        """The open record is whole: keep it, write it, say what is new in it."""
        record, self._open = self._open, None
        before = {symptom[:2] for symptom in self._symptoms()}
        self.history.append(dict(record or {}))
        if self.path is not None:
            append_line(self.path, self.history[-1])
        said = {(one["kind"], one["layer"]) for one in self.warnings}
        for symptom in self._symptoms():
            if symptom[:2] in said or (symptom[:2] not in before and symptom.kind not in AT_ONCE):
                continue
            said.add(symptom[:2])
            self.warnings.append({"step": self.history[-1]["step"], **symptom._asdict()})
            warnings.warn(f"Step {self.history[-1]['step']}. {symptom.text}", stacklevel=2)

    def _symptoms(self) -> list[Symptom]:
        """Those of the last sample."""
        if not self.history:
            return []
        highest = [np.max(record["learning_rate"] or 0.0) for record in self.history]
        return symptoms(self.history[-1], float(highest[-1] / max(highest)) if max(highest) > 0 else 1.0)

    def _last(self) -> dict[str, Any]:
        if not self.history:
            raise ValueError("There is no sample yet: give the monitor to `fit` first.")
        return self.history[-1]

    def _require_probe(self) -> Probe:
        if self._probe is None:
            raise ValueError("The monitor does not know its model yet: give it to `fit`.")
        return self._probe


def gradient_norm(numbers: Mapping[str, Any]) -> float | None:
    """The norm of the gradient of all weights of a layer, from its part of a record."""
    gradients = [weight.get("gradient") for weight in numbers["weights"].values()]
    norms = [gradient["norm"] for gradient in gradients if gradient is not None and gradient["norm"] is not None]
    return float(np.linalg.norm(norms)) if norms else None


def update_ratio(numbers: Mapping[str, Any]) -> float | None:
    """The largest update ratio of a layer's kernels, from its part of a record."""
    ratios = [weight["update_ratio"] for weight in numbers["weights"].values() if weight["update_ratio"] is not None]
    return max(ratios, default=None)


def _first(values: Any) -> np.ndarray | None:
    return None if values is None else np.array(keras.ops.convert_to_numpy(values[:MOST_EXAMPLES]))


def _short(value: Any) -> Any:
    """Six digits are enough, and make the file half as long."""
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
