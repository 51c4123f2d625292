"""Say in words, once, what the accuracies of a training give away: an output that learns nothing, a leak."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from callbacks.processes import predict_batch
from callbacks.stateful import StatefulCallback

# How far accuracies may lie apart by chance, in standard deviations: differences beyond it are told.
BY_CHANCE = 4.0
# Changes from epoch to epoch that must be known before one can be told from the others.
CHANGES = 4
# Of the epochs, from where on accuracies no better than the largest class's share, or above training, count.
LATE = 0.5
LOOKS = 4  # times, at most, that training pictures are predicted

ADVICE = {
    "majority": (
        "Train for longer or with another learning rate, weigh the loss of its classes against their frequency, or "
        "the loss of this output more than the others'; it may also be that the pictures do not tell it."
    ),
    "resume": (
        "Pictures trained on before may be held out now, since the split was drawn anew: split by a fixed seed, and "
        "do not believe this accuracy."
    ),
    "above": (
        "Look for copies of the same pictures on both sides of the split, and for a held-out part that is of another, "
        "easier kind."
    ),
}

Batches = Iterable[Any] | tuple[Any, ...]


class Alarms(StatefulCallback):
    """Warn, once each, of what the accuracies of training and validation give away, with what to do.

    * An output that has learned nothing: in `patience` epochs in a row after the warm-up the same class is answered for
      every held-out example (its accuracy is the share of one class up to half an example, and its predictions, then
      made, are a single class); or, in the second half of the training, it is right on no more held-out examples
      (half of one is allowed) than whoever always answers the largest class.
    * A validation that jumps with the first epoch after a resume (`set_state`), by more than four standard deviations
      of the changes from epoch to epoch before it (by their median deviation, at least four changes), more than four
      of chance, and as much more than the accuracy on the training data: a sign of a split drawn anew.
    * A validation above the accuracy on training examples as they are, without augmentation, by more than four standard
      deviations of chance, in the second half of the training. What augmentation, mixtures and dropout take from the
      accuracy that `fit` shows is no reason: where that is lower, `training` is predicted, four times at most.

    What was told is in `messages`, and belongs to the state: it is not told again by a resumed training.

    Args:
        held_out: The validation data: (x, y), (x, y, sample_weight), or batches of these that can be gone through
            again, such as a dataset. y are class numbers or rows of a number for each class, in dicts for several
            outputs; what has weight 0 has no label. The model answers with a score for each class, or with the
            probability of the second of two.
        training: The same of some training examples, a few hundred to thousand, without augmentation; None does not
            look for a validation above training.
        classes: For every output, if these are a dict, the names of its classes; None for one output.
        names: What to call outputs in words; None calls them as they are.
        start_epoch: The first epoch, counted from 0, after the warm-up.
        patience: Epochs in a row; None takes an eighth of all, at least 3.
        balanced: Whether the loss or the sampling favours rare classes, at the cost of accuracy: less than the largest
            class's share is then no alarm.
        changes: Epochs, counted from 0, from which on training differs, such as in the size of the pictures: a jump
            there is to be expected.
        metric: Of accuracy, as `compile` calls it.
        advice: Other words of what to do, for "majority", "resume" or "above".
        say: Where messages go; None makes them warnings.

    Raises:
        ValueError: At construction, when an argument is wrong. At the end of an epoch, when the logs lack the accuracy.

    >>> alarms = Alarms((np.zeros((4, 2)), np.array([0, 1, 1, 1])))
    >>> alarms.messages
    []
    """

    STATE = ("said", "history", "stuck", "behind", "looked")

    def __init__(
        self,
        held_out: Batches,
        training: Batches | None = None,
        classes: Mapping[str, Sequence[str]] | None = None,
        names: Mapping[str, str] | None = None,
        start_epoch: int = 0,
        patience: int | None = None,
        balanced: bool = False,
        changes: Iterable[int] = (),
        metric: str = "accuracy",
        advice: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"`patience` must be 1, 2, ... epochs, or None. Received: patience={patience}.")
        if start_epoch < 0:
            raise ValueError(f"`start_epoch` must be at least 0. Received: start_epoch={start_epoch}.")
        for name, data in (("held_out", held_out), ("training", training)):
            if isinstance(data, Iterator) or (data is not None and not isinstance(data, Iterable)):
                raise ValueError(
                    f"`{name}` must be (x, y), or batches that can be gone through again. Received: {type(data)}."
                )
        if unknown := set(advice or ()) - set(ADVICE):
            raise ValueError(f"`advice` may be for {', '.join(ADVICE)}. Received: {', '.join(sorted(unknown))}.")
        self.held_out, self.training, self.classes, self.names = held_out, training, classes, dict(names or {})
        self.start_epoch, self.patience, self.balanced, self.metric = start_epoch, patience, balanced, metric
        self.changes, self.advice = frozenset(changes), {**ADVICE, **(advice or {})}
        self.say = say or (lambda text: warnings.warn(text, stacklevel=2))
        self._counts: dict[str, np.ndarray] | None = None
        self._resumed = False
        super().__init__()

    def reset(self) -> None:
        """Nothing was seen, nothing told."""
        self.said: dict[str, str] = {}
        self.history: dict[str, list[list[float]]] = {}  # by output: training and validation accuracy of every epoch
        self.stuck: dict[str, int] = {}  # epochs in a row with the accuracy of a single class
        self.behind: dict[str, int] = {}  # epochs in a row without more than the largest class's accuracy
        self.looked: list[int] = []  # epochs in which training examples were predicted

    @property
    def messages(self) -> list[str]:
        """What was told so far, in order."""
        return list(self.said.values())

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `get_state()`, and compare the next epoch with the last one."""
        super().set_state(state)
        self._resumed = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the accuracies of the epoch."""
        logs = logs or {}
        if not any(name.startswith("val_") for name in logs):  # `fit` may validate every few epochs only
            return
        if self._counts is None:
            self._counts = _class_counts(self.held_out, self.classes)
        answers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for head, counts in self._counts.items():
            if not counts.sum():
                continue
            trained, validated = self._accuracy(logs, head), self._accuracy(logs, head, "val_")
            if not math.isfinite(validated):
                continue
            if np.count_nonzero(counts) > 1:
                self._compare_with_classes(epoch, head, counts, validated, answers)
            if self._resumed and epoch not in self.changes:
                self._compare_with_last(epoch, head, int(counts.sum()), trained, validated)
            self.history.setdefault(head, []).append([trained, validated])
            self._compare_with_training(epoch, head, int(counts.sum()), trained, validated)
        self._resumed = False

    def _compare_with_classes(
        self, epoch: int, head: str, counts: np.ndarray, accuracy: float, answers: dict[str, Any]
    ) -> None:
        """An output that answers one class, or no better than that."""
        right, most = accuracy * counts.sum(), counts.max()
        of_one_class = bool(np.any(np.abs(right - counts) <= 0.5)) and epoch >= self.start_epoch
        no_better = right <= most + 0.5 and epoch >= max(self.start_epoch, LATE * self._epochs) and not self.balanced
        self.stuck[head] = self.stuck.get(head, 0) + 1 if of_one_class else 0
        self.behind[head] = self.behind.get(head, 0) + 1 if no_better else 0
        enough, key = self.patience or max(3, self._epochs // 8), f"majority:{head}"
        if key in self.said or max(self.stuck[head], self.behind[head]) < enough:
            return
        largest = self._class(head, int(counts.argmax()))
        share = f"{_percent(most / counts.sum())} of the held-out examples"
        if self.stuck[head] >= enough:
            if not answers:
                answers.update(_answers(self.model, self.held_out, self.classes))
            guesses = np.unique(answers[head][1])
            if len(guesses) == 1:
                one = self._class(head, int(guesses[0]))
                which = f", the largest ({share})" if guesses[0] == counts.argmax() else f"; the largest is {largest}"
                self._tell(
                    key,
                    f"{self._what(head)} has learned nothing yet: in epoch {epoch + 1}, as in the {enough - 1} before, "
                    f"the accuracy is that of one class, and every held-out example gets class {one}{which}.",
                )
                return
        if self.behind[head] >= enough:
            self._tell(
                key,
                f"{self._what(head)} is no better than always answering class {largest} ({share}): validation "
                f"accuracy {_percent(accuracy)} in epoch {epoch + 1}, and no more than that share in the "
                f"{enough - 1} before.",
            )

    def _compare_with_last(self, epoch: int, head: str, count: int, trained: float, validated: float) -> None:
        """A validation that jumps where a training was resumed."""
        before = np.array(self.history.get(head, ()), "float64").reshape(-1, 2)
        if len(before) <= CHANGES:
            return
        changes = np.diff(before, axis=0)
        change = np.array([trained, validated]) - before[-1]
        jump, ahead = float(change[1]), float(change[1] - change[0])
        chance = BY_CHANCE * math.sqrt(2 * _variance(before[-1, 1], count))
        usual, usually_ahead = _beyond(changes[:, 1]), _beyond(changes[:, 1] - changes[:, 0])
        if jump > max(chance, usual) and ahead > max(chance, usually_ahead):
            self._tell(
                "resume:" + head,
                f"{self._what(head)}: validation accuracy jumps from {_percent(before[-1, 1])} to "
                f"{_percent(validated)} in epoch {epoch + 1}, the first after the resume; before it no more than "
                f"{100 * max(chance, usual):.1f} points were to be expected of an epoch.",
            )

    def _compare_with_training(self, epoch: int, head: str, count: int, trained: float, validated: float) -> None:
        """A validation above what training examples get without augmentation."""
        if self.training is None or epoch + 1 < max(self.start_epoch, LATE * self._epochs) or len(self.looked) >= LOOKS:
            return
        pause = max(1, round((1 - LATE) * self._epochs / LOOKS))
        again = bool(self.looked) and epoch != self.looked[-1] and epoch < self.looked[-1] + pause
        key = "above:" + head
        if key in self.said or again or validated - trained <= BY_CHANCE * math.sqrt(_variance(validated, count)):
            return
        self.looked = [*self.looked, epoch] if epoch not in self.looked else self.looked
        truth, guess = _answers(self.model, self.training, self.classes)[head]
        if not len(truth):
            return
        clean = float(np.mean(truth == guess))
        both = (validated * count + clean * len(truth)) / (count + len(truth))
        chance = math.sqrt(_variance(both, count) + _variance(both, len(truth)))
        if validated - clean > BY_CHANCE * chance:
            self._tell(
                key,
                f"{self._what(head)}: validation accuracy {_percent(validated)} in epoch {epoch + 1} is above the "
                f"{_percent(clean)} on {len(truth):,} training examples as they are, without augmentation; by chance "
                f"it would be {100 * BY_CHANCE * chance:.1f} points at most.",
            )

    def _tell(self, key: str, text: str) -> None:
        if key not in self.said:
            self.said[key] = f"{text} {self.advice[key.split(':')[0]]}"
            self.say(self.said[key])

    def _accuracy(self, logs: Mapping[str, float], head: str, prefix: str = "") -> float:
        for name in (f"{prefix}{head}_{self.metric}", f"{prefix}{self.metric}"):
            if name in logs:
                return float(logs[name])
        raise ValueError(
            f"The logs have no {prefix}{self.metric}{f' of {head!r}' if head else ''}. They have: {', '.join(logs)}. "
            "Compile with metrics=['accuracy'], or say `metric`."
        )

    @property
    def _epochs(self) -> int:
        return int((self.params or {}).get("epochs") or 1)

    def _what(self, head: str) -> str:
        return self.names.get(head, head) or "the network"

    def _class(self, head: str, number: int) -> str:
        return repr(self.classes[head][number]) if self.classes else str(number)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _variance(accuracy: float, count: int) -> float:
    """Of an accuracy on so many examples, with two right and two wrong ones more: never 0 (Agresti and Coull, 1998)."""
    share = (accuracy * count + 2) / (count + 4)
    return share * (1 - share) / (count + 4)


def _beyond(changes: np.ndarray) -> float:
    """A change so large that it is none of these."""
    middle = float(np.median(changes))
    return middle + BY_CHANCE * 1.4826 * float(np.median(np.abs(changes - middle)))


def _batches(data: Batches, size: int = 256) -> Iterator[tuple[Any, Any, Any]]:
    """(x, y, sample_weight) of every batch."""
    if not isinstance(data, tuple):
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)
        return
    count = len(keras.tree.flatten(data)[0])
    for begin in range(0, count, size):
        part = keras.tree.map_structure(lambda values, begin=begin: values[begin : begin + size], data)
        yield keras.utils.unpack_x_y_sample_weight(part)


def _truth(y: Any, weight: Any, head: str) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers [N] of one output, and which of them are known."""
    values = keras.ops.convert_to_numpy(y[head] if isinstance(y, Mapping) else y)
    truth = values.argmax(axis=-1) if values.ndim > 1 and values.shape[-1] > 1 else values.reshape(-1).astype(int)
    if isinstance(weight, Mapping):
        weight = weight.get(head)
    known = truth >= 0 if weight is None else keras.ops.convert_to_numpy(weight).reshape(-1) > 0
    return truth, known


def _class_counts(data: Batches, classes: Mapping[str, Sequence[str]] | None) -> dict[str, np.ndarray]:
    """By output, how many examples there are of each class."""
    found: dict[str, list[np.ndarray]] = {head: [np.zeros(0, int)] for head in classes or ("",)}
    for _, y, weight in _batches(data):
        for head, parts in found.items():
            truth, known = _truth(y, weight, head)
            parts.append(truth[known])
    # At least one entry, so that without any label the sum is 0.
    return {head: np.bincount(np.concatenate(parts), minlength=1) for head, parts in found.items()}


def _answers(
    model: keras.Model, data: Batches, classes: Mapping[str, Sequence[str]] | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By output, the classes of the examples that have one, and the classes that the model answers."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {head: [] for head in classes or ("",)}
    for x, y, weight in _batches(data):
        outputs = predict_batch(model, keras.tree.map_structure(keras.ops.convert_to_numpy, x))
        for head, parts in found.items():
            truth, known = _truth(y, weight, head)
            scores = np.asarray(outputs[head] if isinstance(outputs, Mapping) else outputs, "float32")
            guess = scores.argmax(axis=-1) if scores.shape[-1] > 1 else (scores.reshape(-1) > 0.5).astype(int)
            parts.append((truth[known], guess[known]))
    return {
        head: (np.concatenate([truth for truth, _ in parts]), np.concatenate([guess for _, guess in parts]))
        for head, parts in found.items()
    }
