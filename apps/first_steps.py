"""The first three of the six steps of a start-up: the loss before training, over-fitting a few, a rate that works.

Source: A. Karpathy, J. Johnson, CS231n, "Babysitting the learning process", https://cs231n.github.io/neural-networks-3/
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np

from apps.batches import training_batches
from apps.console import Console
from apps.data import Data, keras_names
from apps.heads import in_keras_names
from apps.network import build_network, compile_network, whiten
from apps.plan import Plan
from apps.recipe import Recipe
from pipelines import make_train
from pipelines.finding import SERIOUS, WARNING, Finding
from pipelines.labels import MISSING
from pipelines.stream import read_batches

TOLERANCE = 0.25  # by which the first loss may differ from ln K, as a share of that where it is above 1
FIRST_LOSS_PICTURES = 256
FEW, MOST_FEW_STEPS = 32, 200  # pictures to over-fit, and in how many steps at most
FEW_RATE = 1e-3  # of Adam, which over-fits whatever the recipe's own rate is
HIGH, LOOK_EVERY = 0.8, 10  # from which accuracy on, and how often, the network is looked at as it predicts
STEPS, FALL = 100, 0.1  # of a trial, and by which share its loss must fall
MANY_CLASSES, DEVIATIONS = 100, 4.0  # with more, it must fall only by more standard errors than that


@dataclass(frozen=True)
class FirstSteps:
    """What the three steps gave, by head as in the data.

    Attributes:
        losses: The loss before any training, and ln K.
        accuracy: The best on the few pictures, the worst of the heads; 1 when over-fitted, None without labels.
        few_steps: Steps that took.
        rate: That made the loss fall; None where none of those tried did.
        fall: The loss at the beginning and at the end of the trial at that rate (of the last one without).
        rate_steps: Steps that took.
        findings: What is wrong.
    """

    losses: dict[str, tuple[float, float]]
    accuracy: float | None
    few_steps: int
    rate: float | None
    fall: tuple[float, float]
    rate_steps: int
    findings: tuple[Finding, ...]


def first_steps(plan: Plan, console: Console) -> FirstSteps:
    """Try the network and the recipe of the plan for a moment, and say what each step gives."""
    recipe, data = in_keras_names(plan.recipe, plan.data)
    names = {short: head for head, short in keras_names(plan.data.classes).items()}
    train_index = plan.splits[0][0]
    keras.utils.set_random_seed(recipe.seed)
    model = build_network(recipe, data, recipe.precision)
    whiten(model, data)
    start = model.get_weights()
    losses = {names[head]: pair for head, pair in first_losses(model, data, train_index).items()}
    found = _judge_losses(losses, console)
    model.set_weights(start)
    accuracy, few_steps = overfit(model, data, train_index, recipe.seed, console)
    few = len(few_pictures(data, train_index, recipe.seed))
    found += _judge_few(accuracy, few_steps, few, console)
    rate, fall, rate_steps = None, (math.nan, math.nan), 0
    for factor in (1.0, 0.1, 10.0):
        model.set_weights(start)
        fell, fall, rate_steps = falls(model, replace(recipe, lr=recipe.lr * factor), data, train_index, console)
        if fell:
            rate = recipe.lr * factor
            break
    many = max(data.num_classes.values()) > MANY_CLASSES
    found += _judge_rate(rate, recipe.lr, fall, rate_steps, many, console)
    return FirstSteps(losses, accuracy, few_steps, rate, fall, rate_steps, tuple(found))


def _judge_losses(losses: Mapping[str, tuple[float, float]], console: Console) -> list[Finding]:
    """Step 1: by head the loss before training and ln K."""
    found = []
    for head, (loss, expected) in losses.items():
        console.say(
            f"step 1    {head}: loss {loss:.2f} before training; ln({round(math.exp(expected))}) = {expected:.2f}"
        )
        if abs(loss - expected) > TOLERANCE * max(expected, 1):
            found.append(
                Finding(
                    "loss before training",
                    WARNING,
                    f"{head}: the loss before training is {loss:.2f}, that of knowing nothing {expected:.2f} (ln K).",
                    0,
                    advice="The last layer begins with too large weights or too large inputs: look at `initializer` "
                    "and the norm of the network.",
                )
            )
    return found


def _judge_few(accuracy: float | None, steps: int, few: int, console: Console) -> list[Finding]:
    """Step 2: the accuracy on a few pictures; None where none of them has a label."""
    if accuracy is None:
        console.say("step 2    no picture to train on has a label")
        return []
    console.say(f"step 2    {accuracy:.0%} of {few} pictures without augmentation after {steps} steps")
    if accuracy >= 1:
        return []
    return [
        Finding(
            "few pictures are not over-fitted",
            SERIOUS,
            f"{MOST_FEW_STEPS} steps do not teach the network {few} pictures: {accuracy:.0%} right at best.",
            few,
            advice="Then it learns no more pictures either: are labels right, do equal pictures have different "
            "ones, is the network too small or regularised too much (`dropout`, `weight_decay`)?",
        )
    ]


def _judge_rate(
    rate: float | None, own: float, fall: tuple[float, float], steps: int, many: bool, console: Console
) -> list[Finding]:
    """Step 3: the rate that made the loss fall, beside the recipe's own; `many` classes may take longer."""
    what = f"from {fall[0]:.2f} to {fall[1]:.2f} within {steps} steps"
    if rate is None:
        console.say(f"step 3    no rate of {own:.2g}, a tenth and ten times of it makes the loss fall: {what}")
        return [
            Finding(
                "no rate makes the loss fall",
                WARNING if many else SERIOUS,
                f"Within {STEPS} steps the loss does not fall by {FALL:.0%} at rates of {own * 0.1:.2g}, {own:.2g} and "
                f"{own * 10:.2g}{', nor by more than it scatters; so many classes may take longer.' if many else '.'}",
                0,
                advice="`kerascnn lr-find DATA` sweeps all rates; look at the augmentation with `kerascnn show DATA`.",
            )
        ]
    console.say(f"step 3    the loss falls {what} at rates up to {rate:.2g}")
    if rate == own:
        return []
    return [
        Finding(
            "another rate is better",
            WARNING,
            f"The recipe's rate of {own:.2g} does not make the loss fall within {STEPS} steps, {rate:.2g} does.",
            0,
            advice=f"Train with `--lr {rate:.2g}`, or ask `kerascnn lr-find DATA`.",
        )
    ]


def first_losses(model: keras.Model, data: Data, index: np.ndarray) -> dict[str, tuple[float, float]]:
    """For every head the mean cross-entropy of the untrained network on some pictures, and ln K of its K classes.

    BatchNorm sees the batch, as in the first step of a training; its statistics are changed by that.
    """
    places = index[:: max(1, len(index) // FIRST_LOSS_PICTURES)][:FIRST_LOSS_PICTURES]
    pictures = np.concatenate([*read_batches(data.pictures[places], len(places))]).astype("float32")
    outputs = model(pictures, training=True)
    losses = {}
    for head, values in data.labels.items():
        known = values[places] != MISSING
        if known.any():
            logits = np.asarray(keras.ops.convert_to_numpy(outputs[head]), "float64")[known]
            largest = logits.max(axis=1, keepdims=True)
            totals = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
            own = logits[np.arange(len(logits)), values[places][known]]
            losses[head] = (float((totals - own).mean()), math.log(data.num_classes[head]))
    return losses


def few_pictures(data: Data, index: np.ndarray, seed: int) -> np.ndarray:
    """Places of up to 32 random pictures with labels, of all heads alike; ascending."""
    mixed = np.random.default_rng(seed).permutation(index)
    labelled = [mixed[values[mixed] != MISSING] for values in data.labels.values()]
    in_turn = np.concatenate([places[: -(-FEW // len(labelled))] for places in labelled] + labelled)
    _, first = np.unique(in_turn, return_index=True)
    return np.sort(in_turn[np.sort(first)[:FEW]])


def overfit(model: keras.Model, data: Data, index: np.ndarray, seed: int, console: Console) -> tuple[float | None, int]:
    """The best accuracy on a few pictures, the worst of the heads, and the steps until then; all right ends it.

    Trained with Adam, whose rate hardly depends on the network, so that this tests network, pictures and labels alone.
    Right is what is so in training, or as the network predicts: dropout spoils the one, statistics of BatchNorm that
    lag behind the other. Heads without a label among the pictures do not count; None where no head has any.
    """
    chosen = few_pictures(data, index, seed)
    heads = [head for head, values in data.labels.items() if (values[chosen] != MISSING).any()]
    if not heads:
        return None, 0
    count = len(chosen)
    pictures = np.concatenate([*read_batches(data.pictures[chosen], count)]).astype("float32")

    def predicted() -> float:
        outputs = model(pictures, training=False)
        known = {head: data.labels[head][chosen] != MISSING for head in heads}
        answers = {head: np.asarray(keras.ops.convert_to_numpy(outputs[head])).argmax(axis=1) for head in heads}
        return min(float((answers[head] == data.labels[head][chosen])[known[head]].mean()) for head in heads)

    batches = iter(make_train(data.pictures, data.labels, data.num_classes, index=chosen, batch_size=count, seed=seed))
    model.compile(
        keras.optimizers.Adam(FEW_RATE),
        loss={head: keras.losses.CategoricalCrossentropy(from_logits=True) for head in data.classes},
        weighted_metrics={head: [keras.metrics.CategoricalAccuracy(name="accuracy")] for head in data.classes},
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    best, step = 0.0, 0
    with console.progress("over-fitting", MOST_FEW_STEPS) as bar:
        for step in range(1, MOST_FEW_STEPS + 1):
            model.reset_metrics()
            logs = model.train_on_batch(*next(batches), return_dict=True)
            # Keras puts the head's name before a metric's where there are several heads.
            now = min(float(logs[f"{head}_accuracy" if f"{head}_accuracy" in logs else "accuracy"]) for head in heads)
            if (now >= HIGH and step % LOOK_EVERY == 0) or step == MOST_FEW_STEPS:
                now = max(now, predicted())
            best = max(best, now)
            bar.update(step, f"accuracy {best:.0%}")
            if best >= 1:
                break
    return best, step


def falls(
    model: keras.Model, recipe: Recipe, data: Data, index: np.ndarray, console: Console
) -> tuple[bool, tuple[float, float], int]:
    """Whether the recipe's training makes the loss fall by a tenth within 100 steps; the losses, the steps it took.

    With more than a hundred classes a tenth of ln K is more than so few steps need to give: then it is enough that the
    last ten losses are lower than the first ten by four standard errors, whose size the changes from one to the next
    tell. The schedule is that of a training of 100 steps; the losses compared are means of 3 and of 5 steps.
    """
    compile_network(model, recipe, data.num_classes, STEPS)
    batches = iter(training_batches(recipe, data, index))
    losses: list[float] = []
    with console.progress(f"rate {recipe.lr:.2g}", STEPS) as bar:
        while len(losses) < STEPS:
            model.reset_metrics()
            losses.append(float(model.train_on_batch(*next(batches), return_dict=True)["loss"]))
            bar.update(len(losses), f"loss {losses[-1]:.3f}")
            if not math.isfinite(losses[-1]):
                break
            first, last = float(np.mean(losses[:3])), float(np.mean(losses[-5:]))
            if len(losses) >= 10 and last <= (1 - FALL) * first:
                return True, (first, last), len(losses)
    if max(data.num_classes.values()) > MANY_CLASSES and np.isfinite(losses).all():
        fallen = float(np.mean(losses[:10]) - np.mean(losses[-10:]))
        scatter = float(np.std(np.diff(losses))) / math.sqrt(2)
        if fallen > DEVIATIONS * scatter * math.sqrt(2 / 10):
            return True, (float(np.mean(losses[:10])), float(np.mean(losses[-10:]))), len(losses)
    return False, (float(np.mean(losses[:3])), float(np.mean(losses[-5:]))), len(losses)
