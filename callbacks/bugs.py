"""Trainings that learn nothing: losses that are not numbers, outputs that stay at chance."""

import math
from collections.abc import Iterator

import numpy as np

from callbacks.evidence import (
    FEW,
    JUMP,
    LITTLE,
    TENTH,
    TWICE,
    Case,
    Diagnosis,
    beyond_chance,
    from_to,
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
# A first epoch by so much above that of equal probabilities, from which nearly all of the fall came at once.
THROWN, AT_ONCE = 1.3, 0.7
# Between epochs the mean loss of the same examples hardly moves by chance; a frozen network's not at all.
STILL, FROZEN = 0.04, 1e-4
# Epochs, as a share of all, in which a loss that creeps down does so.
STEADY = 0.8
# The same accuracy, up to rounding, in this share of the epochs, and not one that a good network may have.
SAME, SAME_ACCURACY, SURE = 0.8, 1e-6, 0.9
# Without validation, this much up and down is as good, if it is all there was from the first epoch to the last.
NEARLY_SAME = 0.002
# In these epochs training accuracy rises by half a point at most, moves by two (the incomplete epochs of a small set
# explain that), and lies so near as the two sides of a split do.
UNMOVED, MOVED, NEAR = 0.005, 0.02, 0.03


def not_finite(curves: TrainingCurves, inner: Windows) -> Diagnosis | None:
    """NaN, and whether there were numbers before."""
    steps, rows = np.flatnonzero(~np.isfinite(inner.loss)), np.flatnonzero(curves.broken)
    if not (len(rows) or len(steps)):
        return _validation_not_finite(curves)
    where = f"epoch {curves.epochs[rows[0]]}" if len(rows) else "an epoch"
    before = np.flatnonzero(np.isfinite(curves.loss[: rows[0]])) if len(rows) else rows
    if len(steps) and steps[0] > 0:
        last = steps[0] - 1
        return _diverged(curves, where, f"it was {inner.loss[last]:.3g} up to step {inner.step[last]:.0f}")
    if len(before):
        return _diverged(curves, where, f"it was {curves.loss[before[-1]]:.3g} in epoch {curves.epochs[before[-1]]}")
    return Diagnosis(
        "bug",
        "The loss is not a number from the beginning",
        f"Training loss is not finite in {where}, and no finite loss came before it.",
        "Look for values that are not finite in the inputs and labels, for labels outside the range of the classes, "
        "and for a logarithm or a division of zero in the loss. If a rate 100 times smaller gives finite losses, the "
        "rate was too high.",
    )


def _diverged(curves: TrainingCurves, where: str, before: str) -> Diagnosis:
    """NaN after numbers."""
    rows = np.flatnonzero(curves.broken)
    rate = curves.rate[rows[0]] if len(rows) else math.nan
    at = f", at learning rate {rate:.2g}" if math.isfinite(rate) else ""
    return Diagnosis(
        "rate too high",
        "The training diverged",
        f"Training loss is not finite in {where}{at}; {before}.",
        "Use a learning rate smaller by a factor of 10, a warm-up before it, or clip the gradient.",
    )


def _validation_not_finite(curves: TrainingCurves) -> Diagnosis | None:
    """NaN in validation alone."""
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
        if _learned_nothing(output):
            yield _no_learning(case, output, name)
        elif _does_not_hold(output):
            yield Diagnosis(
                "bug",
                f"What training learns{name} does not hold for validation at all",
                f"Accuracy{name} in training was {percent(output.accuracy[-1])} in {case.epoch(-1)}, but in validation "
                f"it was {percent(late(output.val_accuracy))} in the later half; chance is "
                f"{percent(1 / (output.classes or 1))}.",
                "Check that inputs and labels belong together, on both sides of the split, and that both are "
                "prepared alike and number the classes alike: show some pictures with their labels. With batch "
                "normalisation, look whether its moving averages had enough steps.",
            )
        elif same := _same_answer(output):
            yield _one_answer(same, name)


def _one_answer(evidence: str, name: str) -> Diagnosis:
    """Most likely the most frequent class."""
    return Diagnosis(
        "bug",
        f"No learning{name}: always the same answer",
        f"{evidence}, as if the most frequent class were always answered.",
        "Check the labels; weigh rare classes, or the loss of this output, more; try another learning rate. It may "
        "also be that the inputs do not tell it.",
    )


def _no_learning(case: Case, output: Output, name: str) -> Diagnosis:
    """A loss that stays where it began: thrown there, hardly moved, or without anything to learn."""
    loss = output.loss if np.isfinite(output.loss).all() else case.curves.loss
    accuracy = late(output.accuracy)
    state = f"In the later half of the epochs training loss{name} was {late(loss):.3g}"
    state += f", accuracy {percent(accuracy)}" if math.isfinite(accuracy) else ""
    state += (
        f"; equal probabilities cost ln({output.classes}) = {math.log(output.classes):.3g}" if output.classes else ""
    )
    if found := _lost(case, output, name, state):
        return found
    if (case.updates is not None and case.updates < TINY_UPDATE) or _creeps(case, output, loss):
        return Diagnosis(
            "rate too low",
            f"The loss{name} hardly moves",
            f"Training loss{name} was {loss[0]:.4g} in {case.epoch(0)} and {loss[-1]:.4g} in {case.epoch(-1)}."
            f"{updates_in_words(case)}",
            "Use a learning rate larger by a factor of 100; a range test finds one. Look that no layer is frozen by "
            "mistake.",
        )
    frozen = float(np.ptp(loss)) <= FROZEN * late(loss)
    if not frozen and _thrown(case, output, loss):
        return Diagnosis(
            "rate too high",
            f"The weights are thrown about, and nothing is learned{name}",
            f"{state}.{updates_in_words(case)}",
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
        "a learning rate that is wrong by a large factor: try one 10 times smaller as well.",
    )


def _thrown(case: Case, output: Output, loss: np.ndarray) -> bool:
    """Whether steps are far too large, or the loss, above that of equal probabilities, came down from a jump.

    A penalty on the weights, or a factor, can hold a loss up there as well; it then falls evenly, or stands still. A
    first epoch that was thrown is far above all others, and may have learned a little before.
    """
    if (case.updates or 0) > HIGHEST_UPDATE:
        return True
    uniform = math.log(output.classes) if output.classes else math.nan
    if not late(loss) > ABOVE_UNIFORM * uniform:
        return False
    steady = np.mean(np.diff(loss) < 0) > STEADY
    at_once = loss[0] - loss[1] > AT_ONCE * (loss[0] - np.min(loss)) and loss[0] > THROWN * uniform
    forgot = output.accuracy[0] > JUMP * late(output.accuracy)
    return bool(at_once or forgot or (not steady and np.max(loss) > JUMP * late(loss)))


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


def _at_chance(accuracy: np.ndarray, classes: int | None) -> bool:
    """Whether an accuracy is that of chance in the later half, and still at the end."""
    known, limit = accuracy[np.isfinite(accuracy)], limit_of_chance(classes)
    return bool(late(accuracy) <= limit and np.mean(known[-2:]) <= limit and known[-1] <= limit)


def _learned_nothing(output: Output) -> bool:
    """Accuracies at chance; without them, or the number of classes, a loss that stood still with a poor accuracy."""
    known = [values for values in (output.accuracy, output.val_accuracy) if np.isfinite(values).any()]
    if known and output.classes:
        return all(_at_chance(values, output.classes) for values in known)
    still = np.isfinite(output.loss).all() and np.ptp(output.loss) <= STILL * np.mean(output.loss)
    moved = known and np.ptp(output.accuracy) > STILL
    return bool(still and not moved and max(map(late, known), default=0.0) < LITTLE)


def _does_not_hold(output: Output) -> bool:
    """Whether training went far while validation stays at chance, or some way while its loss only grew."""
    if not (output.classes and math.isfinite(output.accuracy[-1]) and _at_chance(output.val_accuracy, output.classes)):
        return False
    if beyond_chance(output.accuracy[-1], 1 / output.classes) > LITTLE:
        return True
    above = output.accuracy[-1] > max(TWICE / output.classes, limit_of_chance(output.classes))
    grew = late(output.val_loss) > max(float(np.nanmin(output.val_loss[:1])), math.log(output.classes))
    return bool(len(output.accuracy) >= 2 * FEW and above and grew)


def _same_answer(output: Output) -> str:
    """What shows one answer in nearly all epochs up to the last; nothing where it may be a network that has learned.

    Training accuracy stands still at nearly the same level, and so does its loss, never below what such answers cost.
    """
    validated = np.isfinite(output.val_accuracy).sum() >= FEW + 2
    values = output.val_accuracy if validated else output.accuracy
    rows = np.flatnonzero(np.isfinite(values))
    away = np.abs(values[rows] - values[-1])
    same = NEARLY_SAME if not validated and np.max(away, initial=0.0) <= NEARLY_SAME else SAME_ACCURACY
    count = int(np.argmax([*(away > same)[::-1], True]))
    if len(rows) < FEW + 2 or count < max(SAME * len(rows), FEW) or not values[-1] < SURE:
        return ""
    trained, loss = (
        output.accuracy[rows[-count:]][1:],
        output.loss[rows[-count:]][1:],
    )  # the first one may still learn it
    level = float(np.mean(trained))
    third = max(len(trained) // 3, 1)
    rose = float(np.median(trained[-third:]) - np.median(trained[:third]))
    if not (rose <= UNMOVED and np.ptp(trained) <= MOVED and abs(level - values[-1]) <= NEAR):
        return ""
    constant = -level * math.log(level) - (1 - level) * math.log(1 - level) if 0 < level < 1 else math.inf
    if not (np.min(loss) >= constant and loss[0] - loss[-1] <= STILL * loss[0]):
        return ""
    name = f" of {output.name}" if output.name else ""
    where = f"in {count} of {len(rows)} epochs" if count < len(rows) else f"in all {count} epochs"
    course = f"training loss{name} {from_to(loss[0], loss[-1])} after the first of them"
    if not validated:
        level_of_all = f"between {percent(np.min(values[rows]))} and {percent(np.max(values[rows]))}"
        level_of_all = (
            level_of_all if same == NEARLY_SAME and np.ptp(values[rows]) else f"the same {percent(values[-1])}"
        )
        return f"Training accuracy{name} was {level_of_all} {where}, and {course}"
    return (
        f"Validation accuracy{name} was the same {percent(values[-1])} {where}; training accuracy stayed near "
        f"{percent(level)}, and {course}"
    )


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
