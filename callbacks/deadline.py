"""End a training on time: fewer or more epochs than planned, with the learning-rate schedule at its end."""

import statistics
import time
from collections.abc import Mapping

from callbacks.combinators import Paced
from callbacks.rates import batches_seen, schedule_of
from callbacks.stateful import StatefulCallback

RECENT = 3  # epochs that tell how long the next ones take


class Deadline(StatefulCallback):
    """Stop when the time is up, with the schedule through: its pace follows how long the epochs really take.

    After every epoch the number of those to come is set to what the time left allows, at least one until the schedule
    has ended. The optimiser's rate must be `Paced(schedule)`. Give `fit` `most` epochs, so that a machine faster
    than expected can use its time; `model.stop_training` ends it.

    Args:
        seconds: From the beginning of `fit` to the end of its last epoch, with validation.
        epochs: How many are planned, of equally many steps each.
        steps: How many steps these have together: the length of the schedule.
        most: How many there may be in the end, no more than `fit` runs for; None for one and a half times `epochs`.

    Raises:
        ValueError: An argument is not positive; in `on_train_begin`, when the optimiser's rate is no `Paced`.

    >>> deadline = Deadline(seconds=600, epochs=20, steps=2000)
    >>> deadline.epochs
    20
    """

    STATE = ("seconds", "epochs", "spent", "recent")

    def __init__(self, seconds: float, epochs: int, steps: int, most: int | None = None) -> None:
        if not (seconds > 0 and epochs >= 1 and steps >= 1):
            raise ValueError(
                "`seconds`, `epochs` and `steps` must be positive. "
                f"Received: seconds={seconds}, epochs={epochs}, steps={steps}."
            )
        self._planned = (float(seconds), int(epochs))
        self.steps, self.most = steps, epochs + epochs // 2 if most is None else most
        super().__init__()

    def reset(self) -> None:
        """As planned, with all the time left."""
        self.seconds, self.epochs = self._planned
        self.spent = 0.0
        self.recent: list[float] = []  # seconds of the last epochs

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Refuse a rate whose pace cannot be changed; start the clock."""
        super().on_train_begin(logs)
        if not isinstance(schedule_of(self.model.optimizer), Paced):
            raise ValueError("Deadline changes the pace of the rate: compile with `Paced(schedule)` as learning rate.")
        self._clock = time.monotonic()
        self._compiles = True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remember when it began."""
        self._tick()
        self._epoch_began, self._first, self._last = self.spent, 0, 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count the time, for a checkpoint within the epoch."""
        self._tick()
        self._last = batch + 1
        if self._compiles:  # the first step does, and tells nothing of the others
            self._compiles, self._epoch_began, self._first = False, self.spent, batch + 1

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Set the number of epochs to come and the pace through them, or stop."""
        self._tick()
        model = self.model
        of_an_epoch = self.steps / self._planned[1]
        part = min(max(self._last - self._first, 1) / of_an_epoch, 1.0)  # less than 1 after a resume within it
        self.recent = [*self.recent, (self.spent - self._epoch_began) / part][-RECENT:]
        schedule, step = schedule_of(model.optimizer), batches_seen(model.optimizer)
        positions_left = self.steps - schedule.position(step)
        if positions_left < 0.5:
            model.stop_training = True
            return
        left = max(1, round((self.seconds - self.spent) / statistics.fmean(self.recent)))
        left = max(1, min(left, self.most - epoch - 1))
        if epoch + 1 + left != self.epochs:
            self.epochs = epoch + 1 + left
            schedule.set_pace(step, positions_left / (left * of_an_epoch))

    def _tick(self) -> None:
        now = time.monotonic()
        self.spent += now - self._clock
        self._clock = now
