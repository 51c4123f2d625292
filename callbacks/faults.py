"""Trainings that learn, but not as well as they could: rates, over- and under-fitting, noise."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from callbacks.evidence import (
    FEW,
    GAP,
    LITTLE,
    SMALL_BATCH,
    TENTH,
    TWICE,
    USUAL_BATCH,
    Case,
    Diagnosis,
    from_to,
    late,
    peak_of,
    percent,
    swing,
    updates_in_words,
    wiggle,
)
from callbacks.training_curves import LOW, TrainingCurves

# While the rate was high the loss came down by less than this share of its whole fall, and by more than that after it.
# Schedules that fall in steps look alike, but have most of the fall behind them at the first one.
STALLED, AFTER = 0.15, 0.4
# Deviation of the epochs' training loss from its course, as a share of its level, and of the loss at the beginning:
# more than the choice of a hundred augmented examples explains. Where the rate fell in the end, it may swing before.
RESTLESS, RESTLESS_OF_START = 0.15, 0.02
MANY = 10  # epochs, before up and down can be told from a bend
# A straight fall has done half at half the way; a healthy one, which slows down, nearly all.
STRAIGHT = 0.7
# Two orders of magnitude below the usual 1e-3: https://cs231n.github.io/neural-networks-3/#ratio
TINY_UPDATE, USUAL_UPDATE = 1e-5, 1e-3
# A share of the way from chance to 1, or an accuracy so many times chance, that is not slow.
SOME_WAY, TIMES = 0.3, 5.0
# Validation loss above its lowest by a tenth, and by 2 % of the loss at the beginning: chance moves small losses more.
RISE, RISE_OF_START = 0.1, 0.02
# Training makes at most half of the errors of validation.
ERRORS = 0.5
# An accuracy below this share of the way from chance to 1 is poor, if it stays so.
POOR = 0.8
# In the later half the loss came down by less than an eighth of its whole fall: there is little to come.
PLATEAU = 0.12
# In the last quarter the validation loss came down by a twentieth, and accuracy rose by a point: more is to be had.
STILL_FALLING, POINT, QUARTER = 0.05, 0.01, 0.75
# With a rate that ended low, every loss falls at the end: only where training is hardly better than validation, and
# some way is left, can more epochs teach what both lack. At the end of a long schedule they lack little.
CLOSE, ARRIVED = 0.02, 0.95
# Without validation, training that got so far may be over-fitting as well.
NEARLY = 0.9
# Deviation of a loss from its course, as a share of its level, and of the loss at the beginning.
NOISY, NOISY_OF_START = 0.2, 0.02
NOISE_EXAMPLES = 256  # in a window: fewer jump by their choice


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


def _forgot(case: Case) -> Diagnosis | None:
    """Training, and validation where it is known, that lose what they had learned."""
    curves = case.curves
    chance = curves.chance if math.isfinite(curves.chance) else 0.0
    if len(curves.epochs) < FEW + 2 or not np.isfinite(curves.accuracy).all() or len(curves.cycles) > 1:
        return None
    best, now = int(np.argmax(curves.accuracy)), late(curves.accuracy)
    had = float(curves.accuracy[best]) - chance
    if had < TENTH or now - chance > LITTLE * had or curves.accuracy[-1] - chance > LITTLE * had:
        return None
    judged = curves.val_accuracy - chance
    if np.isfinite(judged).any() and not judged[-1] <= LITTLE * np.nanmax(judged):  # examples became harder, no more
        return None
    return Diagnosis(
        "rate too high",
        "What was learned was lost",
        f"Training accuracy was {percent(curves.accuracy[best])} in {case.epoch(best)}, and only {percent(now)} in the "
        f"later half of the epochs; training loss ended at {curves.loss[-1]:.3g}{case.rate(best)}.",
        "Use a learning rate smaller by a factor of 3 to 10, a longer warm-up, or clip the gradient.",
    )


def _waited(case: Case) -> Diagnosis | None:
    """A loss that comes down only where the rate does, with nothing gained before."""
    curves = case.curves
    loss, rate = curves.loss, curves.rate
    if not np.isfinite(rate).all() or len(curves.cycles) > 1:
        return None
    high = np.flatnonzero(rate >= LOW * np.max(rate))
    first, last, third = high[0], high[-1], max(len(high) // 3, 1)
    if len(high) <= FEW or last == len(loss) - 1:
        return None
    early, before = float(np.mean(loss[first : first + third])), float(np.mean(loss[last + 1 - third : last + 1]))
    gained, after = early - float(np.min(loss[first : last + 1])), float(loss[last] - loss[-1])
    if gained >= STALLED * case.fall or after <= AFTER * case.fall or _gained(case, first, last, third):
        return None
    return Diagnosis(
        "rate too high",
        "Learning waited for the rate to fall",
        f"From {case.epoch(first)} to {curves.epochs[last]}, at learning rates from {rate[first]:.2g} over "
        f"{np.max(rate):.2g} to {rate[last]:.2g}, training loss hardly fell: it was {early:.3g} in the first third of "
        f"them, and {before:.3g} in the last one. Then, with the rate, it fell to {loss[-1]:.3g}.",
        "Use a highest learning rate smaller by a factor of 3 to 10.",
    )


def _gained(case: Case, first: int, last: int, third: int) -> bool:
    """Whether an accuracy, or the validation loss, got better from the first third of these rows to the last one."""
    curves = case.curves

    def change(values: np.ndarray) -> float:
        """In the mean of what is known."""
        begin, end = values[first : first + third], values[last + 1 - third : last + 1]
        known = np.isfinite(begin).any() and np.isfinite(end).any()
        return float(np.nanmean(end) - np.nanmean(begin)) if known else 0.0

    better = max(change(curves.accuracy), change(curves.val_accuracy)) > 2 * POINT
    known = curves.val_loss[np.isfinite(curves.val_loss)]
    return better or bool(len(known) and -change(curves.val_loss) > STALLED * (known[0] - np.min(known)) > 0)


def _swings(case: Case) -> Diagnosis | None:
    """A loss that goes up and down from epoch to epoch."""
    curves = case.curves
    loss, by = curves.loss, swing(curves.loss)
    excused = (case.batch_size or USUAL_BATCH) <= SMALL_BATCH or len(curves.cycles) > 1 or curves.decayed
    if excused or len(loss) < MANY or by < RESTLESS * late(loss) or by < RESTLESS_OF_START * case.begin:
        return None
    return Diagnosis(
        "rate too high",
        "The training loss swings",
        f"In the later half of the epochs training loss moved up and down by about {by:.2g} around {late(loss):.3g}"
        f"{case.rate(-1)}.",
        "Use a learning rate smaller by a factor of 3 to 10, or one that decays to zero.",
    )


def _too_low(case: Case) -> Diagnosis | None:
    """Even, slow progress over little of the way; what went far is not slow."""
    loss = case.curves.loss
    tiny = case.updates is not None and case.updates < TINY_UPDATE
    far = STRAIGHT if tiny else SOME_WAY
    if len(loss) < FEW + 2 or case.learned > far or case.fall > LITTLE * case.begin:
        return None
    if case.updates is not None and case.updates >= USUAL_UPDATE:  # what is slow is not so for want of rate
        return None
    total, half = float(loss[0] - loss[-1]), case.at(loss, 0.5)
    halves = [half, float(np.interp((len(loss) - 1) / 2, np.arange(len(loss)), loss))]
    straight = loss[0] - min(halves) < STRAIGHT * total
    if total <= 0 or not (tiny or straight) or (not tiny and _many_times_chance(case)):
        return None
    accuracy = case.curves.accuracy[-1]
    reached = f" and accuracy {percent(accuracy)}" if math.isfinite(accuracy) else ""
    return Diagnosis(
        "rate too low",
        "Slow and even progress" if straight else "Very small steps",
        f"Training loss fell {'almost on a straight line, ' if straight else ''}from {loss[0]:.3g} in {case.epoch(0)} "
        f"over {half:.3g} half-way to {loss[-1]:.3g}{reached} in {case.epoch(-1)}.{updates_in_words(case)}",
        "Use a learning rate larger by a factor of 3 to 10; a range test finds the largest that works.",
    )


def _many_times_chance(case: Case) -> bool:
    """Whether validation accuracy, or where that is unknown training's, is far above chance and its highest."""
    known = [values for values in (case.curves.val_accuracy, case.curves.accuracy) if math.isfinite(values[-1])]
    return bool(known and known[0][-1] > TIMES * case.curves.chance and known[0][-1] >= np.nanmax(known[0]))


def _over_fitting(case: Case) -> Diagnosis | None:
    """Validation turns round while training goes on, or stays far behind it."""
    curves = case.curves.only(np.flatnonzero(np.isfinite(case.curves.val_loss)))
    if cyclic := len(curves.epochs) > 1 and len(curves.cycles) > 1:
        curves = curves.only(curves.cycles)  # between restarts the loss rises and falls with the rate
    if len(curves.epochs) < FEW:
        return None
    low, end = int(np.argmin(curves.val_loss)), len(curves.epochs) - 1
    turned = _turned(case, curves, least=1 if cyclic else 2)
    gap = float(curves.accuracy[end] - curves.val_accuracy[end])
    far = gap > GAP and 1 - curves.accuracy[end] < ERRORS * (1 - curves.val_accuracy[end])
    if not (turned or far):
        return None
    course = (
        f"Validation loss was lowest in epoch {curves.epochs[low]} ({curves.val_loss[low]:.3g}) and rose to "
        f"{curves.val_loss[end]:.3g} by epoch {curves.epochs[end]}, while training loss fell from "
        f"{curves.loss[low]:.3g} to {curves.loss[end]:.3g}."
    )
    if turned and not far and curves.val_accuracy[end] >= curves.val_accuracy[low]:
        return _too_sure(curves, course, low)
    accuracies = (
        f"In epoch {curves.epochs[end]} accuracy is {percent(curves.accuracy[end])} in training and "
        f"{percent(curves.val_accuracy[end])} in validation."
    )
    return Diagnosis(
        "over-fitting",
        "Training goes on where validation does not follow" if turned else "Training is far ahead of validation",
        " ".join([course] * turned + [accuracies] * math.isfinite(gap)),
        "Use more augmentation, weight decay, dropout or label smoothing; more data, or a smaller network; keep the "
        "weights of the best epoch (early stopping).",
    )


def _turned(case: Case, curves: TrainingCurves, least: int) -> bool:
    """Whether validation loss rose for `least` epochs and more, in the last third since its lowest too."""
    losses, low, end = curves.val_loss, int(np.argmin(curves.val_loss)), len(curves.epochs) - 1
    if end - low < least:
        return False
    rise = float(np.min(losses[end + 1 - max((end - low) // 3, least) :]) - losses[low])
    start = np.nanmax([case.begin, curves.uniform])
    least_rise = max(RISE * losses[low], RISE_OF_START * start, TWICE * wiggle(losses))
    return bool(rise > least_rise and curves.loss[end] < curves.loss[low])


def _too_sure(curves: TrainingCurves, course: str, low: int) -> Diagnosis:
    """A rise of the loss alone."""
    return Diagnosis(
        "over-fitting",
        "Too sure of itself: mild over-fitting",
        f"{course} Validation accuracy did not suffer: {percent(curves.val_accuracy[low])} then, "
        f"{percent(curves.val_accuracy[-1])} now.",
        "If the probabilities matter, use label smoothing, weight decay or a calibrated temperature, or keep the "
        "weights of the epoch of lowest validation loss.",
    )


def _under_fitting(case: Case) -> Diagnosis | None:
    """Training stands still, and is poor."""
    curves, loss = case.curves, case.curves.loss
    if len(loss) < FEW + 2 or len(curves.cycles) > 1:
        return None
    middle = case.at(loss, 0.5)
    least = LITTLE if case.mixed else POOR
    poor = case.learned < least if math.isfinite(case.learned) else loss[-1] > LITTLE * case.begin
    gap = float(curves.accuracy[-1] - curves.val_accuracy[-1])
    if not poor or middle - loss[-1] > PLATEAU * case.fall or gap > GAP:
        return None
    half = int(np.searchsorted(case.way, 0.5))
    accuracy = f", accuracy is {percent(curves.accuracy[-1])} in training" if math.isfinite(curves.accuracy[-1]) else ""
    both = f" and {percent(curves.val_accuracy[-1])} in validation" if math.isfinite(gap) else ""
    return Diagnosis(
        "under-fitting",
        "Training itself stands still at a poor level",
        f"Training loss began at {case.begin:.3g}; from {case.epoch(half)} on it {from_to(loss[half], loss[-1])}"
        f"{case.rate(half, ', though the rate was still ')}{accuracy}{both}.",
        "Use a larger or better suited network, and less weight decay, dropout and augmentation; look whether the "
        "inputs tell the classes at all, and at the range test: a smaller rate may go further.",
    )


def _not_converged(case: Case) -> Diagnosis | None:
    """Better still at the end, with more to be had."""
    cycles = case.curves.cycles
    rows = np.array(cycles if len(cycles) > 1 else range(len(case.curves.epochs)))
    known = rows[np.isfinite(case.curves.val_loss[rows])]
    validated = len(known) > 1 and 2 * known[-1] - known[-2] > rows[-1]  # until now, as often as it was
    if len(known) and not validated:
        return None
    rows = known if validated else rows
    curves = case.curves.only(rows)
    judged = bool(np.isfinite(curves.val_accuracy).all())
    loss, accuracy = curves.val_loss if validated else curves.loss, curves.val_accuracy if judged else curves.accuracy
    if len(loss) < 2 or loss[-1] > np.min(loss) or _settled(case):
        return None
    before = _before_the_end(case, rows)
    late_in_schedule = case.long_schedule and not case.learned < LITTLE
    gain, points = float(loss[before] - loss[-1]), float(accuracy[-1] - accuracy[before])
    if gain < max(STILL_FALLING * loss[before], TWICE * wiggle(loss)) or points < POINT * (1 + late_in_schedule):
        return None
    if not validated and not judged and (case.curves.decayed or case.learned > NEARLY):
        return None
    what = "validation accuracy" if judged and not validated else "accuracy"
    rose = f", and {what} rose from {percent(accuracy[before])} to {percent(accuracy[-1])}"
    return Diagnosis(
        "not converged",
        "Still getting better at the end",
        f"{'Validation' if validated else 'Training'} loss still fell from {loss[before]:.3g} in epoch "
        f"{curves.epochs[before]} to {loss[-1]:.3g} in epoch {curves.epochs[-1]}"
        f"{rose if math.isfinite(points) else ''}{_trained(case)}.",
        "Train for more epochs (twice as many), with the schedule stretched over them.",
    )


def _before_the_end(case: Case, rows: np.ndarray) -> int:
    """The place in `rows` from which on progress counts: the last quarter; of a long schedule the last tenth."""
    count = len(rows)
    if case.long_schedule and not case.learned < LITTLE:
        return count - 1 - max(count // 10, 1)
    before = count - 1 - max(count // 4, 1)
    if len(case.curves.cycles) == 1 and case.curves.decayed and case.learned < POOR:
        # After a short cycle its end is no measure.
        early = np.flatnonzero(case.way[rows] <= QUARTER)
        before = min(before, int(early[-1])) if len(early) else before
    return before


def _trained(case: Case) -> str:
    """What training reached with a rate that fell; mixed examples make that no measure."""
    accuracy = case.curves.accuracy[-1]
    if not case.curves.decayed or case.mixed or not math.isfinite(accuracy):
        return ""
    return f". The rate was low at the end, and training accuracy is {percent(accuracy)}"


def _settled(case: Case) -> bool:
    """Whether a rate that ended low explains why the loss fell at the end."""
    if case.long_schedule:
        return case.learned >= POOR
    if not case.curves.decayed:
        return False
    gap = float(case.curves.accuracy[-1] - case.curves.val_accuracy[-1])
    return case.learned > (NEARLY if case.mixed else ARRIVED) or (gap > CLOSE and case.learned >= POOR)


def _noisy(case: Case) -> Diagnosis | None:
    """The loss within epochs, or validation from epoch to epoch, jumps about its course, and the rate stayed high."""
    small = (case.batch_size or USUAL_BATCH) <= SMALL_BATCH
    size = f" of {case.batch_size} examples" if case.batch_size else ""
    inner, validated = case.joined(NOISE_EXAMPLES), case.curves.val_loss[np.isfinite(case.curves.val_loss)]
    if case.curves.spent:
        return None
    if len(inner.loss) > 4 * FEW and (small or not case.batch_size) and jumps(inner.loss, case.begin):
        batches = round(float(np.median(inner.batches)))
        values, what = inner.loss, "training loss"
        where = f"over windows of {batches} batch{'es' if batches > 1 else ''}{size}"
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
        f"In the later half {what} moved up and down {where}, by about {swing(values):.2g} around "
        f"{late(values):.3g}; training loss was {case.begin:.3g} at first and {case.curves.loss[-1]:.3g} in the end.",
        "Use a larger batch (4 times)," + (" or" if small else "") + " a smaller rate, one that decays to zero, or an "
        "average of the weights.",
    )


def jumps(values: np.ndarray, begin: float) -> bool:
    """Whether values jump about their course, measured by their level and by the loss at the beginning."""
    return swing(values) > max(NOISY * late(values), NOISY_OF_START * begin)


# In the order of their seriousness, and what is explained by what.
RULES: Sequence[Callable[[Case], Diagnosis | None]] = (
    _exploded,
    _forgot,
    _waited,
    _swings,
    _too_low,
    _over_fitting,
    _under_fitting,
    _not_converged,
    _noisy,
)


EXPLAINS = {
    "rate too high": ("rate too low", "under-fitting", "not converged", "noisy"),
    "rate too low": ("under-fitting", "not converged"),
    # What still gets better stands still nowhere, and validation follows; where it turned, it does not.
    "not converged": ("under-fitting", "over-fitting"),
}
