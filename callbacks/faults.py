"""Trainings that learn, but not as well as they could: rates, over- and under-fitting, noise."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from callbacks.evidence import (
    FEW,
    LITTLE,
    SMALL_BATCH,
    TWICE,
    USUAL_BATCH,
    Case,
    Diagnosis,
    late,
    peak_of,
    percent,
    updates_in_words,
    wiggle,
)
from callbacks.training_curves import LOW

# While the rate was high the loss came down by less than this share of its whole fall, and by more than that after it.
# Schedules that fall in steps look alike, but have most of the fall behind them at the first one.
STALLED, AFTER = 0.15, 0.3
# Deviation of the epochs' training loss from its course, as a share of its level, and of the loss at the beginning: the
# mean over the same examples hardly moves by chance. Where the rate fell in the end, a training may swing before.
RESTLESS, RESTLESS_OF_START = 0.05, 0.01
MANY = 10  # epochs, before up and down can be told from a bend
# A straight fall has done half at half the way; a healthy one, which slows down, nearly all.
STRAIGHT = 0.7
# Two orders of magnitude below the usual 1e-3: https://cs231n.github.io/neural-networks-3/#ratio
TINY_UPDATE = 1e-5
# Validation loss above its lowest by a tenth, and by 2 % of the loss at the beginning: chance moves small losses more.
RISE, RISE_OF_START = 0.1, 0.02
# Accuracy in training above validation by ten points, where training makes at most half of the errors.
GAP, ERRORS = 0.1, 0.5
# An accuracy below this share of the way from chance to 1 is poor, if it stays so.
POOR = 0.8
# In the later half the loss came down by less than an eighth of its whole fall: there is little to come.
PLATEAU = 0.12
# In the last quarter the validation loss came down by a twentieth, and accuracy rose by a point: more is to be had.
STILL_FALLING, POINT, QUARTER = 0.05, 0.01, 0.75
# With a rate that ended low, every loss falls at the end: only where training is hardly better than validation, and
# some way is left, can more epochs teach what both lack.
CLOSE, ARRIVED = 0.02, 0.95
# Without validation, training that got so far may be over-fitting as well.
NEARLY = 0.9
# Deviation of a loss from its course, as a share of its level, and of the loss at the beginning.
NOISY, NOISY_OF_START = 0.2, 0.02


def _exploded(case: Case) -> Diagnosis | None:
    """Above the beginning, and back again or not."""
    peak, where = peak_of(case)
    if not peak:
        return None
    return Diagnosis(
        "rate too high",
        "The loss jumped above its beginning",
        f"Training loss began at {case.begin:.3g} and jumped to {peak:.3g} in {where}; in the last epoch it was "
        f"{case.curves.loss[-1]:.3g}.",
        "Use a learning rate smaller by a factor of 3 to 10, a longer warm-up, or clip the gradient.",
    )


def _unsettled(case: Case) -> Diagnosis | None:
    """A loss that comes down only where the rate does, or that changes its course from epoch to epoch."""
    curves = case.curves
    loss, rate = curves.loss, curves.rate
    if np.isfinite(rate).all() and len(curves.cycles) == 1:
        high = np.flatnonzero(rate >= LOW * np.max(rate))
        first, last = high[0], high[-1]
        early = loss[first : first + max(len(high) // 3, 1)]
        if len(high) > FEW and last < len(loss) - 1:
            gained, after = float(np.mean(early) - np.min(loss[first : last + 1])), float(loss[last] - loss[-1])
            if gained < STALLED * case.fall and after > AFTER * case.fall:
                return Diagnosis(
                    "rate too high",
                    "Learning waited for the rate to fall",
                    f"From {case.epoch(first)} to {curves.epochs[last]}, at learning rates from {rate[first]:.2g} over "
                    f"{np.max(rate):.2g} to {rate[last]:.2g}, training loss hardly fell (from {np.mean(early):.3g} to "
                    f"{loss[last]:.3g}); then, with the rate, it fell to {loss[-1]:.3g}.",
                    "Use a highest learning rate smaller by a factor of 3 to 10: the epochs at the high one were lost.",
                )
    swing = wiggle(loss)
    excused = (case.batch_size or USUAL_BATCH) <= SMALL_BATCH or len(curves.cycles) > 1 or curves.decayed
    if excused or len(loss) < MANY or swing < RESTLESS * late(loss) or swing < RESTLESS_OF_START * case.begin:
        return None
    return Diagnosis(
        "rate too high",
        "The training loss swings",
        f"In the later half of the epochs training loss moved up and down by about {swing:.2g} around {late(loss):.3g}"
        f"{case.rate(-1)}, although its mean over an epoch hardly depends on chance.",
        "Use a learning rate smaller by a factor of 3 to 10, or one that decays to zero.",
    )


def _too_low(case: Case) -> Diagnosis | None:
    """Even, slow progress over little of the way."""
    loss = case.curves.loss
    tiny = case.updates is not None and case.updates < TINY_UPDATE
    if len(loss) < FEW + 2 or case.learned > STRAIGHT or case.fall > LITTLE * case.begin:
        return None
    total = float(loss[0] - loss[-1])
    halves = [case.at(loss, 0.5), float(np.interp((len(loss) - 1) / 2, np.arange(len(loss)), loss))]
    if total <= 0 or not (tiny or loss[0] - min(halves) < STRAIGHT * total):
        return None
    accuracy = case.curves.accuracy[-1]
    reached = f" and accuracy {percent(accuracy)}" if math.isfinite(accuracy) else ""
    return Diagnosis(
        "rate too low",
        "Slow and even progress",
        f"Training loss fell almost on a straight line, from {loss[0]:.3g} in {case.epoch(0)} over "
        f"{case.at(loss, 0.5):.3g} half-way to {loss[-1]:.3g}{reached} in {case.epoch(-1)}.{updates_in_words(case)}",
        "Use a learning rate larger by a factor of 3 to 10; a range test finds the largest that works.",
    )


def _over_fitting(case: Case) -> Diagnosis | None:
    """Validation turns round while training goes on, or stays far behind it."""
    curves = case.curves.only(np.flatnonzero(np.isfinite(case.curves.val_loss)))
    if cyclic := len(curves.epochs) > 1 and len(curves.cycles) > 1:
        curves = curves.only(curves.cycles)  # between restarts the loss rises and falls with the rate
    if len(curves.epochs) < FEW:
        return None
    losses, low, end = curves.val_loss, int(np.argmin(curves.val_loss)), len(curves.epochs) - 1
    least = 1 if cyclic else 2  # the last third since then
    tail = losses[end + 1 - max((end - low) // 3, least) :] if end - low >= least else losses[low : low + 1]
    rise = float(np.min(tail) - losses[low])
    start = np.nanmax([case.begin, curves.uniform])
    least_rise = max(RISE * losses[low], RISE_OF_START * start, TWICE * wiggle(losses))
    turned = rise > least_rise and curves.loss[end] < curves.loss[low]
    gap = float(curves.accuracy[end] - curves.val_accuracy[end])
    far = gap > GAP and 1 - curves.accuracy[end] < ERRORS * (1 - curves.val_accuracy[end])
    if not (turned or far):
        return None
    course = (
        f"Validation loss was lowest in epoch {curves.epochs[low]} ({losses[low]:.3g}) and rose to {losses[end]:.3g} "
        f"by epoch {curves.epochs[end]}, while training loss fell from {curves.loss[low]:.3g} to "
        f"{curves.loss[end]:.3g}."
    )
    accuracies = (
        f"In epoch {curves.epochs[end]} accuracy is {percent(curves.accuracy[end])} in training and "
        f"{percent(curves.val_accuracy[end])} in validation."
        if math.isfinite(gap)
        else ""
    )
    if turned and not far and curves.val_accuracy[end] >= curves.val_accuracy[low]:
        return Diagnosis(
            "over-fitting",
            "Too sure of itself: mild over-fitting",
            f"{course} Validation accuracy did not suffer: {percent(curves.val_accuracy[low])} then, "
            f"{percent(curves.val_accuracy[end])} now.",
            "If the probabilities matter, use label smoothing, weight decay or a calibrated temperature, or keep the "
            "weights of the epoch of lowest validation loss.",
        )
    return Diagnosis(
        "over-fitting",
        "Training goes on where validation does not follow",
        " ".join(part for part in (course if turned else "", accuracies) if part),
        "Use more augmentation, weight decay, dropout or label smoothing; more data, or a smaller network; keep the "
        "weights of the best epoch (early stopping).",
    )


def _under_fitting(case: Case) -> Diagnosis | None:
    """Training stands still, and is poor."""
    curves, loss = case.curves, case.curves.loss
    if len(loss) < FEW + 2 or len(curves.cycles) > 1:
        return None
    middle = case.at(loss, 0.5)
    poor = case.learned < POOR if math.isfinite(case.learned) else loss[-1] > LITTLE * case.begin
    gap = float(curves.accuracy[-1] - curves.val_accuracy[-1])
    if not poor or middle - loss[-1] > PLATEAU * case.fall or gap > GAP:
        return None
    half = int(np.searchsorted(case.way, 0.5))
    accuracy = f", accuracy is {percent(curves.accuracy[-1])} in training" if math.isfinite(curves.accuracy[-1]) else ""
    both = f" and {percent(curves.val_accuracy[-1])} in validation" if math.isfinite(gap) else ""
    return Diagnosis(
        "under-fitting",
        "Training itself stands still at a poor level",
        f"Training loss fell from {case.begin:.3g}, but since {case.epoch(half)} only from {loss[half]:.3g} to "
        f"{loss[-1]:.3g}{case.rate(half, ', though the rate was still ')}{accuracy}{both}.",
        "Use a larger or better suited network, and less weight decay, dropout and augmentation; look whether the "
        "inputs tell the classes at all, and at the range test: a smaller rate may go further.",
    )


def _not_converged(case: Case) -> Diagnosis | None:
    """Better still at the end, with more to be had."""
    curves = case.curves
    curves = curves.only(curves.cycles) if len(curves.cycles) > 1 else curves
    validated = bool(np.isfinite(curves.val_loss).all())
    loss, accuracy = (curves.val_loss, curves.val_accuracy) if validated else (curves.loss, curves.accuracy)
    count = len(loss)
    if count < 2:
        return None
    before = count - 1 - max(count // 4, 1)
    if curves is case.curves and curves.decayed and case.learned < POOR:  # after a short cycle, its end is no measure
        before = min(before, int(np.flatnonzero(case.way <= QUARTER)[-1]))
    gain, points = float(loss[before] - loss[-1]), float(accuracy[-1] - accuracy[before])
    gap = float(curves.accuracy[-1] - curves.val_accuracy[-1])
    by_chance = TWICE * wiggle(loss)
    if (
        loss[-1] > np.min(loss)
        or gain < max(STILL_FALLING * loss[before], by_chance)
        or points < POINT
        or _settled(case, gap)
    ):
        return None
    if not validated and (case.curves.decayed or case.learned > NEARLY):
        return None
    name = "Validation" if validated else "Training"
    rose = (
        f", and accuracy rose from {percent(accuracy[before])} to {percent(accuracy[-1])}"
        if math.isfinite(points)
        else ""
    )
    learned = (
        f". The rate ended low, yet training accuracy is only {percent(curves.accuracy[-1])}"
        if case.curves.decayed and math.isfinite(gap)
        else ""
    )
    return Diagnosis(
        "not converged",
        "Still getting better at the end",
        f"{name} loss still fell from {loss[before]:.3g} in epoch {curves.epochs[before]} to {loss[-1]:.3g} in epoch "
        f"{curves.epochs[-1]}{rose}{learned}.",
        "Train for more epochs (twice as many), with the schedule stretched over them.",
    )


def _settled(case: Case, gap: float) -> bool:
    """Whether a rate that ended low explains why the loss fell at the end."""
    return case.curves.decayed and (case.learned > ARRIVED or (gap > CLOSE and case.learned >= POOR))


def _noisy(case: Case) -> Diagnosis | None:
    """The loss within epochs, or validation from epoch to epoch, jumps about its course."""
    small = (case.batch_size or USUAL_BATCH) <= SMALL_BATCH
    size = f" of {case.batch_size} examples" if case.batch_size else ""
    inner, validated = case.inner.loss, case.curves.val_loss[np.isfinite(case.curves.val_loss)]
    if len(inner) > 4 * FEW and (small or not case.batch_size) and jumps(inner, case.begin):
        values, what, batches = inner, "training loss", f"{np.median(case.inner.batches):.0f} batches{size}"
        where = f"over windows of {batches}"
    elif (
        len(validated) >= (2 * FEW if small and case.batch_size else MANY)
        and not case.curves.decayed
        and jumps(validated, case.begin)
    ):
        values, what, where = validated, "validation loss", "from epoch to epoch"
    else:
        return None
    return Diagnosis(
        "noisy",
        f"The {what} jumps about" + (f", with batches of only {case.batch_size}" if small and case.batch_size else ""),
        f"In the later half {what} moved up and down {where}, by about {wiggle(values):.2g} around "
        f"{late(values):.3g}; in all, training loss fell from {case.begin:.3g} to {case.curves.loss[-1]:.3g}.",
        "Use a larger batch (4 times)," + (" or" if small else "") + " a smaller rate, one that decays to zero, or an "
        "average of the weights.",
    )


def jumps(values: np.ndarray, begin: float) -> bool:
    """Whether values jump about their course, measured by their level and by the loss at the beginning."""
    return wiggle(values) > max(NOISY * late(values), NOISY_OF_START * begin)


# In the order of their seriousness, and what is explained by what.
RULES: Sequence[Callable[[Case], Diagnosis | None]] = (
    _exploded,
    _unsettled,
    _too_low,
    _over_fitting,
    _under_fitting,
    _not_converged,
    _noisy,
)


EXPLAINS = {
    "rate too high": ("rate too low", "under-fitting", "not converged", "noisy"),
    "rate too low": ("under-fitting", "not converged"),
}
