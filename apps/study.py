"""A search over several processes: its trials, which survive the death of any of them."""

import csv
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from apps import files
from apps.ranges import Range, Space, Values, border, narrowed, space_from_json, space_to_json, widened
from apps.study_store import JournalStore, Store
from apps.study_values import cell, decoded, distributions, encoded

STAGES = COARSE, FINE = "coarse", "fine"
SAMPLERS = ("random", "tpe")
COMPLETE_BEFORE_PRUNING = 4  # trials to whose median others are compared
COMPLETE_BEFORE_WIDENING = 4  # the best of fewer lies anywhere
KILLED, KILLED_TWICE = "its process was killed", "its process was killed twice"
SECONDS_BETWEEN_LOOKS = 0.5  # while others finish their trials


STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}  # all others have failed


class Pruned(Exception):
    """A trial is not worth going on with."""


@dataclass
class Trial:
    """One choice of values to be tried.

    Attributes:
        stage: "coarse" or "fine".
        number: Of the trial in its stage, from 0.
        values: By field of the recipe.
        folder: Its own, removed after it.
        release: Ends the signs of life by which others know that the trial has a process.
        epochs: Counted up by `report`.
    """

    stage: str
    number: int
    values: dict[str, Any]
    folder: Path
    asked: optuna.Trial
    release: Callable[[], object]
    began: float = field(default_factory=time.monotonic)
    epochs: int = 0

    def report(self, score: float) -> None:
        """The score after one more epoch.

        Raises:
            Pruned: Others took this process for dead, and repeat the trial.
        """
        try:
            self.asked.report(score, self.epochs)
            self.asked.set_user_attr("seconds", self.seconds())
        except UpdateFinishedTrialError as error:
            raise Pruned from error
        self.epochs += 1

    def seconds(self) -> float:
        """How long it has been going on."""
        return round(time.monotonic() - self.began, 2)

    def is_hopeless(self) -> bool:
        """Whether its best score so far is below the median of what others had after as many epochs."""
        return self.asked.should_prune()


@dataclass(frozen=True)
class Finished:
    """A trial that ended. `state`: "complete", "pruned", "failed" or "interrupted", which will be repeated."""

    stage: str
    number: int
    state: str
    values: dict[str, Any]
    score: float | None
    epochs: int
    seconds: float
    why: str


class Study:
    """The trials of a search, which any number of processes take from and give back to.

    Random values on the scale of their range, first in the coarse stage; the fine stage repeats the best of these and
    tries others from narrower ranges around them. Where the best value lies at the border of its range, the range
    becomes wider. A trial whose process died, or was interrupted, is repeated, once.

    Every change is made under the store's lock.

    Args:
        folder: Exists; for trials.csv and the trials' folders.
        space: What to search, for the process that begins.
        trials: How many of each stage.
        seed: Every trial's values follow from it and from the trial's number.
        fits: Whether a field can have a value: ranges widen no further.
        first: Values of the first trial; None for random ones.
        sampler: "random" or "tpe".
        store: Keeps the trials; None for a journal in the folder.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        trials: Mapping[str, int],
        *,
        seed: int = 0,
        fits: Callable[[str, Any], bool] = lambda name, value: True,
        first: Mapping[str, Any] | None = None,
        sampler: str = "random",
        store: Store | None = None,
    ) -> None:
        self.folder, self.trials, self.seed, self.fits, self.sampler = folder, dict(trials), seed, fits, sampler
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.store = JournalStore(folder) if store is None else store
        with self.locked():
            self._studies = {stage: self._open(stage) for stage in STAGES}
            coarse = self._studies[COARSE]
            if "space" not in coarse.user_attrs:
                if first is not None and all(first[name] in one for name, one in space.items()):
                    coarse.enqueue_trial(encoded(first, space))
                coarse.set_user_attr("space", space_to_json(space))
        self._told = {stage: self._ended(stage) for stage in STAGES}
        self._widenings_told = {stage: len(self._widenings(stage)) for stage in STAGES}

    def locked(self) -> AbstractContextManager[None]:
        """Keep all other processes from changing anything."""
        return self.store.locked()

    def space(self, stage: str) -> Space:
        """What the stage searches, as wide as it is now; the fine stage's begins as the coarse one ends."""
        return space_from_json(self._studies[stage].user_attrs["space"])

    def take(self, may_begin: Callable[[str], bool] = lambda stage: True) -> Trial | None:
        """The next trial; None when all have ended. Waits while others are at the last ones of a stage.

        `may_begin` is asked before every trial; once it says no, its stage ends for all processes.
        """
        while True:
            with self.locked():
                for stage in STAGES:
                    self._free_abandoned(stage)
                    if stage == FINE and not self._begin_fine(may_begin):
                        return None
                    if self._has_more(stage):
                        if may_begin(stage):
                            return self._ask(stage)
                        self._studies[stage].set_user_attr("closed", True)
                    if self._in(stage, TrialState.RUNNING):
                        break
                else:
                    return None
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def finish(self, trial: Trial, state: str, score: float | None = None, why: str = "") -> None:
        """Write down how a trial ended (`Finished.state`), widen the ranges where the best now lies at a border.

        Nothing is written of one that others repeat, since they took its process for dead.
        """
        with self.locked():
            study = self._studies[trial.stage]
            if trial.number in {one.number for one in self._in(trial.stage, TrialState.RUNNING)}:
                trial.asked.set_user_attr("seconds", trial.seconds())
                if state in ("failed", "interrupted"):
                    trial.asked.set_user_attr("why", why)
                    trial.asked.set_user_attr("state", state)
                study.tell(trial.asked, score if state == "complete" else None, STATES.get(state, TrialState.FAIL))
                if state == "interrupted":
                    self._repeat(trial.stage, trial.asked.params, self._attempt(trial.asked))
                if state == "complete" and self._has_more(trial.stage):
                    self._widen(trial.stage)
            trial.release()
            self.write_table()
            self._remove_ended_folders()

    def reopen(self) -> None:
        """Let the stages go on that ended since trials might not begin any more (`take`)."""
        with self.locked():
            for study in self._studies.values():
                if study.user_attrs.get("closed", False):
                    study.set_user_attr("closed", False)

    def left(self, stage: str) -> int:
        """How many of the asked trials have not ended."""
        ended = sum(one.state != "interrupted" for one in self.finished(stage))
        return max(self.trials[stage] - ended, len(self._in(stage, TrialState.WAITING)))

    def best(self, stage: str | None = None) -> Finished | None:
        """The trial with the highest score: of the fine stage, and before it has one of the coarse stage."""
        for one in (FINE, COARSE) if stage is None else (stage,):
            if complete := [trial for trial in self.finished(one) if trial.score is not None]:
                return max(complete, key=lambda trial: (trial.score, -trial.number))
        return None

    def finished(self, stage: str) -> list[Finished]:
        """The trials that have ended, by number."""
        ended = [one for one in self._studies[stage].get_trials(deepcopy=False) if one.state.is_finished()]
        space = self.space(stage) if ended else {}
        return [self._describe(stage, trial, space) for trial in ended]

    def write_table(self) -> None:
        """trials.csv: one row a trial that has ended, on whatever machine; under the lock."""
        names = list(self.space(COARSE))
        with files.whole_file(self.folder / "trials.csv") as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["stage", "trial", *names, "score", "epochs", "seconds", "state", "why"])
            for stage in STAGES:
                for one in self.finished(stage):
                    values = [cell(one.values.get(name)) for name in names]
                    score = "" if one.score is None else one.score
                    row = [stage, one.number, *values, score, one.epochs, one.seconds, one.state, one.why]
                    writer.writerow(row)

    def news(self) -> Iterator[Finished]:
        """The trials of all processes that ended since the last call, or since this object was made."""
        for stage in STAGES:
            for trial in self.finished(stage):
                if trial.number not in self._told[stage]:
                    self._told[stage].add(trial.number)
                    yield trial

    def new_widenings(self) -> Iterator[str]:
        """In words, the ranges that became wider since the last call."""
        for stage in STAGES:
            lines = self._widenings(stage)
            yield from lines[self._widenings_told[stage] :]
            self._widenings_told[stage] = len(lines)

    def at_border(self) -> dict[str, str]:
        """The fields whose best value lies at the border of its range and could lie beyond: "low" or "high"."""
        best = self.best()
        if best is None:
            return {}
        sides = {
            name: border(one, best.values[name])
            for name, one in self.space(best.stage).items()
            if isinstance(one, Range)
        }
        return {name: side for name, side in sides.items() if side and self._wider(best.stage, name, side)}

    def importances(self) -> dict[str, float]:
        """How much each field decides about a good coarse trial, 1 together; empty with fewer than 10 to tell from."""
        space = self.space(COARSE)
        complete = self._in(COARSE, TrialState.COMPLETE)
        if len(complete) < 10 or len(space) < 2:
            return {}
        # All with the same ranges, the widest: Optuna leaves out what changed its range on the way.
        same = optuna.create_study(direction="maximize")
        wide = distributions(space)
        for trial in complete:
            same.add_trial(optuna.trial.create_trial(params=trial.params, distributions=wide, value=trial.value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluator is called experimental
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(evaluate_on_local=False)
            return dict(optuna.importance.get_param_importances(same, evaluator=evaluator))

    def _open(self, stage: str) -> optuna.Study:
        return optuna.create_study(
            storage=self.store.storage,
            study_name=self.store.study_name(stage),
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=COMPLETE_BEFORE_PRUNING),
        )

    def _in(self, stage: str, *states: TrialState) -> list[FrozenTrial]:
        return self._studies[stage].get_trials(deepcopy=False, states=states)

    def _has_more(self, stage: str) -> bool:
        """Whether a trial of the stage waits to be repeated, or a further one may begin."""
        study = self._studies[stage]
        if study.user_attrs.get("closed", False):
            return False
        trials = study.get_trials(deepcopy=False)
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        return sum(self._state(trial) != "interrupted" for trial in trials) < self.trials[stage]

    def _ask(self, stage: str) -> Trial:
        study, space = self._studies[stage], self.space(stage)
        waiting = self._in(stage, TrialState.WAITING)
        number = waiting[0].number if waiting else len(study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.seed, stage == FINE, number]).generate_state(1)[0])
        study.sampler = (
            optuna.samplers.RandomSampler(seed) if self.sampler == "random" else optuna.samplers.TPESampler(seed=seed)
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")  # the store beats
            asked = study.ask(distributions(space))
        folder = self._folder(stage, asked.number)
        folder.mkdir(parents=True, exist_ok=True)
        release = self.store.hold(study, asked, folder)
        return Trial(stage, asked.number, decoded(asked.params, space), folder, asked, release)

    def _folder(self, stage: str, number: int) -> Path:
        return self.folder / "trials" / f"{stage}-{number}"

    def _remove_ended_folders(self) -> None:
        running = {self._folder(stage, one.number) for stage in STAGES for one in self._in(stage, TrialState.RUNNING)}
        for folder in set((self.folder / "trials").glob("*")) - running:
            shutil.rmtree(folder, ignore_errors=True)

    def _free_abandoned(self, stage: str) -> None:
        """End the trials whose process is gone, so that they are repeated, once."""
        study = self._studies[stage]
        for number in self.store.end_abandoned(study, partial(self._folder, stage)):
            trial = study.get_trials(deepcopy=False)[number]
            params = trial.system_attrs.get("fixed_params", trial.params)
            # Else it was killed while values were chosen.
            if self._state(trial) == "interrupted" and len(params) == len(self.space(stage)):
                self._repeat(stage, params, self._attempt(trial) + 1)
            self.write_table()
            self._remove_ended_folders()

    def _repeat(self, stage: str, params: Mapping[str, Any], attempt: int) -> None:
        self._studies[stage].enqueue_trial(dict(params), user_attrs={"attempt": attempt})

    def _attempt(self, trial: FrozenTrial | optuna.Trial) -> int:
        return int(trial.user_attrs.get("attempt", 1))

    def _begin_fine(self, may_begin: Callable[[str], bool]) -> bool:
        """Whether there is a fine stage; its ranges are worked out when the coarse stage has ended.

        Where the coarse stage was reopened and goes on, what is among the best now is repeated as well, and the ranges
        reach around it; the values of what is no number stay, as Optuna needs it.
        """
        fine, ended = self._studies[FINE], len(self.finished(COARSE))
        if fine.user_attrs.get("follows") == ended:
            return True
        complete = [trial for trial in self.finished(COARSE) if trial.score is not None]
        if not complete or not self.trials[FINE]:
            return False
        if "space" not in fine.user_attrs and not may_begin(FINE):
            return False  # a search that goes on may know better ones by then
        best = sorted(complete, key=lambda trial: (-(trial.score or 0.0), trial.number))
        best = best[: math.ceil(self.trials[FINE] / 2)]
        space = {
            name: narrowed(one, [trial.values[name] for trial in best], partial(self.fits, name))
            for name, one in self.space(COARSE).items()
        }
        if "space" in fine.user_attrs:
            space = {name: _both(one, space[name]) for name, one in self.space(FINE).items()}
        known = [trial.system_attrs.get("fixed_params") for trial in fine.get_trials(deepcopy=False)]
        for trial in best:
            if all(trial.values[name] in one for name, one in space.items()):
                params = encoded(trial.values, space)
                if params not in known:  # of the stage as it was, or of a process that was killed right here
                    fine.enqueue_trial(params)
        fine.set_user_attr("space", space_to_json(space))
        fine.set_user_attr("follows", ended)
        return True

    def _widen(self, stage: str) -> None:
        best = self.best(stage)
        if best is None or len(self._in(stage, TrialState.COMPLETE)) < COMPLETE_BEFORE_WIDENING:
            return
        space, lines = self.space(stage), []
        for name, one in space.items():
            side = border(one, best.values[name]) if isinstance(one, Range) else ""
            if side and (wider := self._wider(stage, name, side)):
                space[name] = wider
                lines.append(
                    f"the best {name} so far, {best.values[name]:.4g}, lies at the border of its range, {one}: "
                    f"now {wider}."
                )
        if lines:
            study = self._studies[stage]
            study.set_user_attr("space", space_to_json(space))
            study.set_user_attr("widenings", [*self._widenings(stage), *lines])

    def _wider(self, stage: str, name: str, side: str) -> Range | None:
        found = self.space(stage)[name]
        return widened(found, side, partial(self.fits, name)) if isinstance(found, Range) else None

    def _widenings(self, stage: str) -> list[str]:
        return list(self._studies[stage].user_attrs.get("widenings", []))

    def _ended(self, stage: str) -> set[int]:
        return {trial.number for trial in self.finished(stage)}

    def _state(self, trial: FrozenTrial) -> str:
        if not trial.state.is_finished():
            return "running"
        if trial.state == TrialState.FAIL:  # without a word about it where its process was killed
            return str(trial.user_attrs.get("state", "interrupted" if self._attempt(trial) < 2 else "failed"))
        return next(name for name, state in STATES.items() if state == trial.state)

    def _describe(self, stage: str, trial: FrozenTrial, space: Space) -> Finished:
        state, killed = self._state(trial), trial.state == TrialState.FAIL and "state" not in trial.user_attrs
        why = (KILLED if state == "interrupted" else KILLED_TWICE) if killed else trial.user_attrs.get("why", "")
        return Finished(
            stage,
            trial.number,
            state,
            decoded(trial.params, space),
            trial.value if trial.state == TrialState.COMPLETE else None,
            len(trial.intermediate_values),
            float(trial.user_attrs.get("seconds", 0.0)),
            why,
        )


def _both(before: Range | Values, now: Range | Values) -> Range | Values:
    """The range that holds two; of values those before."""
    if not isinstance(before, Range) or not isinstance(now, Range):
        return before
    return Range(min(before.low, now.low), max(before.high, now.high), before.log, before.whole)
