"""Trainings that learn nothing: losses that are not numbers, outputs that stay at chance."""

import math
from collections.abc import Iterator

import numpy as np

from callbacks.evidence import (
    FEW,
    JUMP,
    LITTLE,
    TENTH,
    Case,
    Diagnosis,
    late,
    limit_of_chance,
    peak_of,
    percent,
    updates_in_words,
)
from callbacks.faults import STRAIGHT, TINY_UPDATE
from callbacks.symptoms import HIGHEST_UPDATE
from callbacks.training_curves import Output, TrainingCurves, Windows

# A loss above that of equal probabilities by two percent: answers that are constant cost less, those that a high rate
# throws about cost more (measured: 0.2 % at a usual rate, 3 % at one twenty times as high).
ABOVE_UNIFORM = 1.02
# Between epochs the mean loss of the same examples hardly moves by chance; a frozen network's not at all.
STILL, FROZEN = 0.04, 1e-4
# Epochs, as a share of all, in which a loss that creeps down does so.
STEADY = 0.8
# The same validation accuracy in this share of the epochs, and not because everything is right.
SAME, SURE = 0.8, 0.97
# By so much training is better at most, and its loss fell, where an output gives one answer.
NO_BETTER, HARDLY = 0.04, 0.2


def not_finite(curves: TrainingCurves, inner: Windows) -> Diagnosis | None:
    """NaN, and whether there were numbers before."""
    steps, rows = np.flatnonzero(~np.isfinite(inner.loss)), np.flatnonzero(curves.broken)
    finite = np.flatnonzero(np.isfinite(curves.loss))
    if len(rows) or len(steps):
        where = f"epoch {curves.epochs[rows[0]]}" if len(rows) else "an epoch"
        if len(steps) and steps[0] > 0:
            last = steps[0] - 1
            before = f"it was {inner.loss[last]:.3g} up to step {inner.step[last]:.0f}"
        elif len(rows) and len(finite) and finite[0] < rows[0]:
            before = f"it was {curves.loss[rows[0] - 1]:.3g} in the epoch before"
        else:
            return Diagnosis(
                "bug",
                "The loss is not a number from the beginning",
                f"Training loss is not finite in {where}, and no finite loss came before it.",
                "Look for values that are not finite in the inputs and labels, for labels outside the range of the "
                "classes, and for a logarithm or a division of zero in the loss. If a rate 100 times smaller gives "
                "finite losses, the rate was too high.",
            )
        rate = curves.rate[rows[0]] if len(rows) else math.nan
        at = f", at learning rate {rate:.2g}" if math.isfinite(rate) else ""
        return Diagnosis(
            "rate too high",
            "The training diverged",
            f"Training loss is not finite in {where}{at}; {before}.",
            "Use a learning rate smaller by a factor of 10, a warm-up before it, or clip the gradient.",
        )
    broken = np.flatnonzero(curves.val_broken)
    if not len(broken):
        return None
    bug = len(broken) == len(curves.epochs)
    return Diagnosis(
        "bug" if bug else "rate too high",
        "The validation loss is not a number",
        f"Validation loss is not finite in {counted(curves.epochs[broken])}, while training loss is "
        f"{curves.loss[broken[0]]:.3g}.",
        "Look for values that are not finite in the validation data, and for labels that training does not have."
        if bug
        else "Use a learning rate smaller by a factor of 3 to 10: single steps threw the weights far out.",
    )


def bugs_of(case: Case) -> Iterator[Diagnosis]:
    """Outputs that learn nothing, or nothing that holds for the validation data."""
    for output in case.curves.outputs if len(case.curves.epochs) >= FEW else ():
        name = f" of {output.name}" if output.name else ""
        limit = limit_of_chance(output.classes)
        trained, validated = late(output.accuracy), late(output.val_accuracy)
        if _learned_nothing(output, limit):
            yield _no_learning(case, output, name)
        elif validated <= limit and trained > limit:
            yield Diagnosis(
                "bug",
                f"What training learns{name} does not hold for validation at all",
                f"Accuracy{name} in training rose to {percent(output.accuracy[-1])}, but in validation it was "
                f"{percent(validated)} in the later half; chance is {percent(1 / (output.classes or 1))}.",
                "Check that inputs and labels belong together, on both sides of the split, and that both are "
                "prepared alike and number the classes alike: show some pictures with their labels. With batch "
                "normalisation, look whether its moving averages had enough steps.",
            )
        elif _one_answer(output):
            yield Diagnosis(
                "bug",
                f"No learning{name}: always the same answer",
                f"Validation accuracy{name} was the same {percent(usual(output.val_accuracy))} in "
                f"{percent(share_usual(output.val_accuracy), 0)} of the epochs, and training accuracy no higher "
                f"({percent(output.accuracy[-1])}), as if the most frequent class were always answered.",
                "Check the labels; weigh rare classes, or the loss of this output, more; try another learning rate. "
                "It may also be that the inputs do not tell it.",
            )


def _no_learning(case: Case, output: Output, name: str) -> Diagnosis:
    """A loss that stays where it began: thrown there, hardly moved, or without anything to learn."""
    loss = output.loss if np.isfinite(output.loss).all() else case.curves.loss
    uniform = math.log(output.classes) if output.classes else math.nan
    accuracy = late(output.accuracy)
    state = f"In the later half of the epochs training loss{name} was {late(loss):.3g}"
    state += f", accuracy {percent(accuracy)}" if math.isfinite(accuracy) else ""
    state += f"; equal probabilities cost ln({output.classes}) = {uniform:.3g}" if output.classes else ""
    frozen = float(np.ptp(loss)) <= FROZEN * late(loss) or len(set(output.val_loss)) == 1
    thrown = not frozen and late(loss) > ABOVE_UNIFORM * uniform
    if found := _lost(case, output, name, state):
        return found
    if (case.updates is not None and case.updates < TINY_UPDATE) or _creeps(case, output, loss):
        return Diagnosis(
            "rate too low",
            f"The loss{name} hardly moves",
            f"Training loss{name} fell evenly, but only from {loss[0]:.4g} to {loss[-1]:.4g}.{updates_in_words(case)}",
            "Use a learning rate larger by a factor of 100; a range test finds one. Look that no layer is frozen by "
            "mistake.",
        )
    if thrown or (case.updates or 0) > HIGHEST_UPDATE:
        return Diagnosis(
            "rate too high",
            f"The weights are thrown about, and nothing is learned{name}",
            f"{state}, less than this training pays.{updates_in_words(case)}",
            "Use a learning rate smaller by a factor of 10 to 100, or clip the gradient; normalise the inputs. A layer "
            "of dead units looks like this too: train from the beginning.",
        )
    return Diagnosis(
        "bug",
        f"No learning at all{name}",
        state + (". It does not change at all." if frozen else ".") + updates_in_words(case),
        "Nothing moves the weights: look whether layers are frozen, the rate is zero, or the loss does not depend on "
        "the output."
        if frozen
        else "Show some inputs with their labels: are they in the same order, do the inputs differ from each other, "
        "is their range that of the network? Then try to over-fit 20 examples: a network that cannot has a bug, or "
        "a rate that is wrong by a large factor.",
    )


def _lost(case: Case, output: Output, name: str, state: str) -> Diagnosis | None:
    """Whether an explosion, or too high a rate, undid what was learned or prevented it."""
    peak, where = peak_of(case)
    if len(case.curves.outputs) == 1 and peak > JUMP * late(case.curves.loss):
        return Diagnosis(
            "rate too high",
            "The loss exploded, and nothing was learned after it",
            f"Training loss rose from {case.begin:.3g} to {peak:.3g} in {where}. {state}. Units that die, or saturate, "
            "in such a step get no gradient any more.",
            "Use a learning rate smaller by a factor of 10 to 100, a warm-up, or clip the gradient; normalise the "
            "inputs.",
        )
    reached = np.fmax(output.accuracy, output.val_accuracy)
    if not np.nanmax(reached, initial=0.0) > limit_of_chance(output.classes) + TENTH:
        return None
    best = int(np.nanargmax(reached))
    return Diagnosis(
        "rate too high",
        f"What was learned{name} was lost",
        f"Accuracy{name} was {percent(reached[best])} in {case.epoch(best)}. {state}.",
        "Use a learning rate smaller by a factor of 3 to 10, or clip the gradient. If the rate rises in a warm-up or a "
        "cycle, lower its maximum.",
    )


def _learned_nothing(output: Output, limit: float) -> bool:
    """Accuracies at chance; without them, or the number of classes, a loss that stood still with a poor accuracy."""
    known = [late for late in (late(output.accuracy), late(output.val_accuracy)) if math.isfinite(late)]
    if known and output.classes:
        return max(known) <= limit
    still = np.isfinite(output.loss).all() and np.ptp(output.loss) <= STILL * np.mean(output.loss)
    moved = known and np.ptp(output.accuracy) > STILL
    return bool(still and not moved and max(known, default=0.0) < LITTLE)


def _one_answer(output: Output) -> bool:
    """Whether validation accuracy hardly ever changes, and training is no better."""
    values = output.val_accuracy
    if len(values) < FEW + 2 or not np.isfinite(values).all() or share_usual(values) < SAME:
        return False
    fallen = output.loss[0] - output.loss[-1] > HARDLY * output.loss[0]
    return not fallen and usual(values) < SURE and output.accuracy[-1] < usual(values) + NO_BETTER


def usual(values: np.ndarray) -> float:
    """The most frequent value."""
    found, counts = np.unique(values, return_counts=True)
    return float(found[np.argmax(counts)])


def share_usual(values: np.ndarray) -> float:
    """Of all values."""
    return float(np.mean(values == usual(values)))


def _creeps(case: Case, output: Output, loss: np.ndarray) -> bool:
    """Whether training and validation loss fall in nearly every epoch, on a straight line."""
    if not np.isfinite(output.val_loss).all():
        return False
    steady = all(np.mean(np.diff(values) < 0) > STEADY for values in (loss, output.val_loss))
    return steady and loss[0] - case.at(loss, 0.5) < STRAIGHT * (loss[0] - loss[-1])


def counted(epochs: np.ndarray) -> str:
    """The first few, in words.

    >>> counted(np.array([1])), counted(np.array([1, 2, 3, 4, 5]))
    ('epoch 1', 'epochs 1, 2, 3, ...')
    """
    listed = ", ".join(str(epoch) for epoch in epochs[:3])
    return f"epoch{'s' if len(epochs) > 1 else ''} {listed}{', ...' if len(epochs) > 3 else ''}"
