"""Which runner computes a version: the fastest of those that are installed and give the right answers."""

import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from apps.serve.canary import Example, answer, made_up_example, wrong
from apps.serve.errors import Refusal
from apps.serve.processor import has_bfloat16
from apps.serve.runner import Runner, check_runner_name, has_openvino
from apps.serve.servable import DEFAULT, SIZED
from apps.serve.settings import Settings
from apps.serve.signature import Signature
from apps.serve.tensorflow_runner import TensorFlowRunner, on_gpu, plain_message

LOG = logging.getLogger(__name__)
MEASURED_ROWS = 8  # at a time, and 1
SECONDS = 0.15  # that each runner is measured with each number of rows
ROUNDS = (2, 20)  # at least, whatever it takes, and at most
# So much faster must a runner be to be preferred to a more exact one, or OpenVINO to TensorFlow.
MARGIN = 1.1


def choose(
    label: str,
    tensorflow: TensorFlowRunner,
    signatures: Mapping[str, Signature],
    examples: Sequence[Example],
    settings: Settings,
) -> Runner:
    """The runner of `settings.runner` that is to compute a version; says in the log which, and how fast it is.

    Lower precision than the exported one is only tried where there are examples with recorded answers.

    Args:
        label: What the log calls the version: "digits 3".
        tensorflow: The loaded version.
        signatures: Of it.
        examples: With recorded answers or without; without any example, numbers of any kind take their place.
        settings: The server's.

    Raises:
        ValueError: TensorFlow's own answers are wrong: the version is broken. Or the runner is not installed.
    """
    check_runner_name(settings.runner)
    most = settings.max_batch
    if problem := wrong(tensorflow, examples, signatures, "float32", most):
        raise ValueError(problem)
    known = any(example.outputs is not None for example in examples)
    examples = [  # records of requests alone: the others must agree with TensorFlow on these too
        example
        if example.outputs is not None
        else replace(example, outputs=answer(tensorflow, example, signatures[example.signature], most))
        for example in examples
    ]
    examples = [*examples, *_answered(tensorflow, signatures, examples, settings)]
    agreeing: list[Runner] = []
    for precision, runner in _candidates(label, settings.runner, tensorflow, signatures, known and not settings.exact):
        problem = None if runner is tensorflow else wrong(runner, examples, signatures, precision, most)
        if problem:
            LOG.warning("%s: %s is not used: %s", label, runner.name, problem)
        else:
            agreeing.append(runner)
    if not agreeing:
        LOG.warning("%s: %s cannot compute it, so tensorflow does.", label, settings.runner)
        return tensorflow
    main = main_signature(signatures)
    sizes = sorted({1, min(MEASURED_ROWS, settings.max_batch)})
    inputs = [made_up_example(signatures[main], rows) for rows in sizes] if main else []
    if len(agreeing) == 1 or not inputs or None in inputs:
        LOG.info("%s: %s", label, agreeing[0].name)
        return agreeing[0]
    speeds = measure(agreeing, [example for example in inputs if example])
    best = fastest(speeds, [runner.name for runner in agreeing])
    order = sorted(speeds, key=lambda name: (name != best, -speeds[name][-1]))
    told = (f"{name} {speeds[name][-1]:,.0f} rows/s ({speeds[name][0]:,.0f} singly)" for name in order)
    LOG.info("%s: %s", label, ", ".join(told))
    return next(runner for runner in agreeing if runner.name == best)


def main_signature(signatures: Mapping[str, Signature]) -> str | None:
    """The one that most requests are computed with; None where there is no such."""
    return next((name for name in (SIZED, DEFAULT) if name in signatures), None)


def _answered(
    tensorflow: TensorFlowRunner, signatures: Mapping[str, Signature], examples: Sequence[Example], settings: Settings
) -> Iterator[Example]:
    """Made-up examples of the signatures that have no recorded ones, with TensorFlow's answers."""
    recorded = {example.signature for example in examples}
    if SIZED in recorded:
        recorded |= signatures.keys()  # an export of this toolkit: the others are the same function
    for name, signature in signatures.items():
        example = None if name in recorded else made_up_example(signature, min(2, settings.max_batch))
        if example is None:
            continue
        try:
            outputs = answer(tensorflow, example, signature, settings.max_batch)
        except Refusal as refusal:  # not every number need be allowed
            LOG.info("The signature %s was not tried: %s", name, refusal.message)
            continue
        if problem := wrong(_Once(outputs), [example], signatures, "float32", settings.max_batch):
            raise ValueError(problem)
        yield replace(example, outputs=outputs)


class _Once:
    """Has computed already."""

    name = "computed"

    def __init__(self, outputs: dict[str, np.ndarray]) -> None:
        self._outputs = outputs

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._outputs

    def close(self) -> None:
        pass


def _candidates(
    label: str, wish: str, tensorflow: TensorFlowRunner, signatures: Mapping[str, Signature], known: bool
) -> Iterator[tuple[str, Runner]]:
    """(precision, runner), the most exact first, TensorFlow before OpenVINO."""
    lower = known and has_bfloat16()
    if wish != "openvino":
        yield "float32", tensorflow
    models = {}
    if wish != "tensorflow" and has_openvino():
        from apps.serve.openvino_runner import OpenVINORunner, convert

        models = convert(tensorflow, signatures)
        if models:
            try:
                compiled = OpenVINORunner(models, signatures, tensorflow)
            except RuntimeError as error:  # converted, but its operations or types are not all there for this processor
                LOG.warning("%s: OpenVINO cannot compile it: %s", label, plain_message(error))
                models = {}
            else:
                yield "float32", compiled
    if wish != "openvino" and (lower or (known and on_gpu())) and (reduced := tensorflow.in_reduced_precision()):
        yield reduced.precision, reduced
    if models and lower:
        yield "bfloat16", OpenVINORunner(models, signatures, tensorflow, "bfloat16")


def measure(runners: Sequence[Runner], examples: Sequence[Example]) -> dict[str, list[float]]:
    """Rows per second of each runner by its name, for each example; medians, all in turn so that noise meets all.

    A runner that fails is left out.
    """
    speeds: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for example in examples:
        rows = len(next(iter(example.inputs.values())))
        left = [runner for runner in runners if runner.name in speeds]
        for runner in left:
            try:
                for _ in range(2):  # the first call prepares for this number of rows
                    runner.run(example.signature, example.inputs)
            except Refusal as refusal:
                LOG.warning("%s fails: %s", runner.name, refusal.message)
                del speeds[runner.name]
        left = [runner for runner in left if runner.name in speeds]
        seconds: dict[str, list[float]] = {runner.name: [] for runner in left}
        end = time.perf_counter() + SECONDS * len(left)
        for turn in range(ROUNDS[1]):
            if turn >= ROUNDS[0] and time.perf_counter() > end:
                break
            for runner in left:
                start = time.perf_counter()
                runner.run(example.signature, example.inputs)
                seconds[runner.name].append(time.perf_counter() - start)
        for name, times in seconds.items():
            speeds[name].append(rows / statistics.median_low(times))
    return speeds


def fastest(speeds: Mapping[str, Sequence[float]], order: Sequence[str]) -> str:
    """The name of the fastest by the geometric mean of its speeds; an earlier one where it wins by less than 10 %.

    >>> fastest({"exact": [100, 400], "rough": [105, 420]}, ["exact", "rough"])
    'exact'
    >>> fastest({"exact": [100, 400], "rough": [90, 900]}, ["exact", "rough"])
    'rough'
    """
    score = {name: math.exp(statistics.fmean(map(math.log, values))) for name, values in speeds.items()}
    left = [name for name in order if name in score]
    best = left[0]
    for name in left[1:]:
        if score[name] > MARGIN * score[best]:
            best = name
    return best
