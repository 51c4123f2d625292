"""A search's trials: ranges, stages, several processes, the death of any of them. Nothing is trained."""

import csv
import json
import math
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from apps.ranges import Range, Values, around, border, narrowed, parse_over, space_from_json, space_to_json, widened
from apps.study import COARSE, FINE, KILLED_TWICE, Study

RATE = {"lr": Range(1e-3, 1e-1, log=True, whole=False)}
SPACE = {**RATE, "model": Values(("small", "large", None)), "batch_size": Range(8, 64, log=True, whole=True)}


def peak(values: dict, at: float) -> float:
    """A score that is highest, 0, for one rate."""
    return -((math.log10(values["lr"]) - math.log10(at)) ** 2)


def finish_all(study: Study, at: float) -> None:
    while trial := study.take():
        trial.report(peak(trial.values, at))
        study.finish(trial, "complete", peak(trial.values, at))


def work(folder: Path, trials: int, seconds: float, kill_at: int | None) -> None:
    """A process that takes trials; it dies within the trial of this number."""
    study = Study(folder, SPACE, {COARSE: trials, FINE: 3})
    while trial := study.take():
        (folder / f"taken-{trial.stage}-{trial.number}-{os.getpid()}").touch()
        if kill_at == trial.number:
            os.kill(os.getpid(), 9)
        time.sleep(seconds)
        study.finish(trial, "complete", peak(trial.values, 0.02))


@pytest.fixture(scope="module")
def processes():
    """Starts `work` in processes of their own, which import the study once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["apps.study"])

    def start(*arguments: object) -> multiprocessing.Process:
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    return start


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_values_follow_from_seed_and_number_whoever_asks(tmp_path) -> None:
    def values(name: str, seed: int, reopen: bool) -> list[dict]:
        folder = tmp_path / name
        folder.mkdir()
        study = Study(folder, SPACE, {COARSE: 6, FINE: 2}, seed=seed)
        found = []
        while trial := study.take():
            found.append(trial.values)
            study.finish(trial, "complete", -trial.values["lr"] * 0 + trial.number)
            if reopen:
                study = Study(folder, {}, {COARSE: 6, FINE: 2}, seed=seed)
        return found

    found = values("a", 0, False)
    assert found == values("b", 0, True)
    assert found[:6] != values("c", 1, False)[:6]
    assert len(found) == 8
    assert len({one["lr"] for one in found}) == 7  # the fine stage begins with the best of the coarse one
    assert found[6] == found[5]
    assert {type(one["batch_size"]) for one in found} == {int}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_widening_finds_what_lies_beyond_the_range_and_says_so(tmp_path, sampler) -> None:
    study = Study(tmp_path, RATE, {COARSE: 30, FINE: 5}, sampler=sampler)
    finish_all(study, at=1.0)
    wide = study.space(COARSE)["lr"]
    assert wide.low == 1e-3
    assert wide.high >= 1.0
    lines = list(study.new_widenings())
    assert lines[0].startswith("the best lr so far, 0.0")
    assert "lies at the border of its range, 0.001 to 0.1 (log): now 0.001 to 1 (log)." in lines[0]
    assert list(study.new_widenings()) == []
    best = study.best()
    assert best.stage == FINE
    assert abs(math.log10(best.values["lr"])) < 0.25
    # What was kept is what the next process reads.
    again = Study(tmp_path, RATE, {COARSE: 30, FINE: 5})
    assert again.space(COARSE)["lr"] == wide


def test_ranges_widen_no_further_than_values_fit(tmp_path) -> None:
    def fits(name: str, value: float) -> bool:
        return value < 0.15

    study = Study(tmp_path, RATE, {COARSE: 20, FINE: 0}, fits=fits)
    finish_all(study, at=1.0)
    assert 0.14 < study.space(COARSE)["lr"].high < 0.15
    assert study.at_border() == {}  # nothing lies beyond


def test_best_at_the_border_is_known_when_no_trial_is_left_to_widen_for(tmp_path) -> None:
    study = Study(tmp_path, RATE, {COARSE: 3, FINE: 0}, first={"lr": 0.099})
    finish_all(study, at=1.0)
    assert study.space(COARSE)["lr"].high == 0.1
    assert study.at_border() == {"lr": "high"}


def test_fine_stage_repeats_the_best_and_looks_around_them(tmp_path) -> None:
    study = Study(tmp_path, SPACE, {COARSE: 12, FINE: 5})
    finish_all(study, at=0.02)
    coarse = sorted(study.finished(COARSE), key=lambda one: -one.score)
    fine = study.finished(FINE)
    assert [one.values for one in fine[:3]] == [one.values for one in coarse[:3]]
    found = study.space(FINE)
    best = [one.values["lr"] for one in coarse[:3]]
    width = math.log10(100)
    assert math.log10(min(best) / found["lr"].low) == pytest.approx(width / 8, rel=1e-3)
    assert math.log10(found["lr"].high / max(best)) == pytest.approx(width / 8, rel=1e-3)
    assert set(found["model"].values) == {one.values["model"] for one in coarse[:3]}
    for one in fine[3:]:
        assert one.values["lr"] in found["lr"]
        assert one.values["batch_size"] in found["batch_size"]
        assert one.values["model"] in found["model"].values


def test_hopeless_trials_are_known_by_the_median_of_the_others(tmp_path) -> None:
    study = Study(tmp_path, RATE, {COARSE: 7, FINE: 0})
    hopeless = []
    for level in (0.1, 0.2, 0.3, 0.4, 0.24, 0.26):
        trial = study.take()
        for epoch in range(3):
            trial.report(level + epoch)
            hopeless.append(trial.is_hopeless())
        study.finish(trial, "pruned" if level == 0.24 else "complete", level)
    assert hopeless == [False] * 12 + [True] * 3 + [False] * 3
    assert study.best().score == 0.4
    assert [row["state"] for row in rows(tmp_path)] == ["complete"] * 4 + ["pruned", "complete"]
    assert [row["epochs"] for row in rows(tmp_path)] == ["3"] * 6


def test_failed_trials_count_and_interrupted_ones_are_repeated(tmp_path) -> None:
    study = Study(tmp_path, SPACE, {COARSE: 3, FINE: 0})
    trial = study.take()
    study.finish(trial, "failed", why="diverged")
    stopped = study.take()
    study.finish(stopped, "interrupted", why="stopped")
    again = Study(tmp_path, {}, {COARSE: 3, FINE: 0})
    repeated = again.take()
    assert repeated.values == stopped.values
    assert repeated.number == 2
    again.finish(repeated, "complete", 0.5)
    again.finish(again.take(), "complete", 0.4)
    assert again.take() is None
    assert [(row["state"], row["why"]) for row in rows(tmp_path)] == [
        ("failed", "diverged"),
        ("interrupted", "stopped"),
        ("complete", ""),
        ("complete", ""),
    ]
    assert [one.number for one in study.news()] == [0, 1, 2, 3]
    assert list((tmp_path / "trials").iterdir()) == []


def test_a_stage_that_may_not_go_on_ends_for_all(tmp_path) -> None:
    study = Study(tmp_path, RATE, {COARSE: 9, FINE: 4})
    for _ in range(2):
        study.finish(study.take(), "complete", 0.5)
    trial = study.take(lambda stage: stage == FINE)
    assert trial.stage == FINE
    study.finish(trial, "complete", 0.6)
    other = Study(tmp_path, {}, {COARSE: 9, FINE: 4})
    assert other.take(lambda stage: False) is None
    assert study.take() is None
    assert (len(study.finished(COARSE)), len(study.finished(FINE))) == (2, 1)


def test_reopened_stages_go_on_and_the_best_found_then_are_repeated(tmp_path) -> None:
    study = Study(tmp_path, SPACE, {COARSE: 9, FINE: 2})
    for score in (0.5, 0.4):
        study.finish(study.take(), "complete", score)
    trial = study.take(lambda stage: stage == FINE)
    study.finish(trial, "complete", 0.6)
    assert study.take(lambda stage: False) is None
    assert (study.left(COARSE), study.left(FINE)) == (7, 1)
    before = study.space(FINE)
    other = Study(tmp_path, {}, {COARSE: 9, FINE: 2})
    other.reopen()
    new = other.take()
    assert new.stage == COARSE
    assert study.space(COARSE)["lr"] == RATE["lr"]
    other.finish(new, "complete", 0.9)
    while (trial := other.take()).stage == COARSE:
        other.finish(trial, "complete", 0.1)
    fine = [trial]
    other.finish(trial, "complete", 0.7)
    while trial := other.take():
        fine.append(trial)
        other.finish(trial, "complete", 0.7)
    assert (other.left(COARSE), other.left(FINE)) == (0, 0)
    now = other.space(FINE)
    assert now["model"] == before["model"]
    if new.values["model"] in before["model"].values:
        assert fine[0].values == new.values
    assert now["lr"].low <= min(before["lr"].low, new.values["lr"])
    assert now["lr"].high >= max(before["lr"].high, new.values["lr"])


@pytest.mark.parametrize("best", [0, 1, 2])
def test_few_whole_numbers_go_through_the_fine_stage(tmp_path, best) -> None:
    study = Study(tmp_path, {"randaugment": Range(0, 2, False, True)}, {COARSE: 12, FINE: 6}, fits=lambda _, n: n >= 0)
    while trial := study.take():
        study.finish(trial, "complete", -abs(trial.values["randaugment"] - best))
    found = study.space(FINE)["randaugment"]
    assert found.low <= max(0, best - 1)
    assert found.high >= min(2, best + 1)
    assert study.best().values["randaugment"] == best
    assert study.left(FINE) == 0
    study.at_border()


def test_weights_of_heads_are_values_like_others(tmp_path) -> None:
    space = parse_over(['head_weights=[null, {"label": 2, "kids": 1}, {"label": 2.0, "kids": 1.0}]'])
    assert space == {"head_weights": Values((None, {"label": 2.0, "kids": 1.0}))}
    study = Study(tmp_path, space, {COARSE: 4, FINE: 2}, first={"head_weights": {"kids": 1.0, "label": 2.0}})
    tried = []
    while trial := study.take():
        tried.append(trial.values["head_weights"])
        study.finish(trial, "complete", 0.5 if trial.values["head_weights"] else 0.4)
    assert tried[0] == {"label": 2.0, "kids": 1.0}
    assert None in tried
    assert study.best().values == {"head_weights": tried[0]}
    assert rows(tmp_path)[0]["head_weights"] == '{"kids": 1.0, "label": 2.0}'


def test_without_a_score_there_is_no_fine_stage(tmp_path) -> None:
    study = Study(tmp_path, RATE, {COARSE: 2, FINE: 2})
    for _ in range(2):
        study.finish(study.take(), "failed", why="diverged")
    assert study.take() is None
    assert study.best() is None


def test_several_processes_make_the_asked_number_of_trials_and_one_killed_is_replaced(tmp_path, processes) -> None:
    started = [processes(tmp_path, 10, 0.05, kill_at) for kill_at in (None, 4)]
    for process in started:
        process.join(60)
    codes = sorted(process.exitcode for process in started)
    assert codes in ([-9, 0], [0, 0])  # the other process may have taken that trial
    found = rows(tmp_path)
    killed = [row for row in found if row["state"] == "interrupted"]
    assert len(killed) == codes.count(-9)
    complete = [row for row in found if row["state"] == "complete"]
    assert [row["stage"] for row in complete] == ["coarse"] * 10 + ["fine"] * 3
    for row in killed:
        assert row["why"] == "its process was killed"
        assert sum(other["lr"] == row["lr"] for other in complete) >= 1
    assert len(list(tmp_path.glob("taken-*"))) == 13 + len(killed)  # no trial was taken twice
    assert len({path.name.split("-")[3] for path in tmp_path.glob("taken-*")}) > 1


def test_killed_process_leaves_a_trial_that_the_next_one_repeats_and_gives_up_at_the_second_death(
    tmp_path, processes
) -> None:
    first = processes(tmp_path, 3, 0.0, 1)
    first.join(60)
    assert first.exitcode == -9
    second = processes(tmp_path, 3, 0.0, 2)  # the repetition of trial 1 has number 2
    second.join(60)
    assert second.exitcode == -9
    # Half a line, as when a process dies while it writes.
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 5, "wor')
    study = Study(tmp_path, {}, {COARSE: 3, FINE: 0})
    finish_all(study, at=0.02)
    found = rows(tmp_path)
    assert [row["state"] for row in found] == ["complete", "interrupted", "failed", "complete"]
    assert found[1]["lr"] == found[2]["lr"]
    assert found[2]["why"] == KILLED_TWICE
    assert study.best() is not None


def test_importance_is_of_what_decides(tmp_path) -> None:
    study = Study(tmp_path, {**RATE, "momentum": Range(0.0, 0.9, False, False)}, {COARSE: 40, FINE: 0})
    while trial := study.take():
        study.finish(trial, "complete", peak(trial.values, 0.05))
    importances = study.importances()
    assert sum(importances.values()) == pytest.approx(1)
    assert importances["lr"] > 0.7


def test_ranges_as_they_are_typed() -> None:
    space = parse_over(
        [
            *("lr", "weight_decay=1e-4..1e-1", "label_smoothing=0..0.2", "mixup=0.1..1:log"),
            *("batch_size=32,64,128", "crop=1..4", "model=resnet9, airbench94", "flip=true,false"),
            *("frozen_scale=null,1.702", "image_size=[[16, 16], [32, 24]]", "l2=0..1e-3:linear"),
        ]
    )
    assert space == {
        "lr": None,
        "weight_decay": Range(1e-4, 1e-1, True, False),
        "label_smoothing": Range(0.0, 0.2, False, False),
        "mixup": Range(0.1, 1.0, True, False),
        "batch_size": Values((32, 64, 128)),
        "crop": Range(1, 4, False, True),
        "model": Values(("resnet9", "airbench94")),
        "flip": Values((True, False)),
        "frozen_scale": Values((None, 1.702)),
        "image_size": Values(((16, 16), (32, 24))),
        "l2": Range(0.0, 1e-3, False, False),
    }
    kept = {name: one for name, one in space.items() if one is not None}
    assert space_from_json(space_to_json(kept)) == kept
    assert json.loads(space_to_json(kept))["batch_size"] == {"values": [32, 64, 128]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weigth_decay=0..1", "Did you mean 'weight_decay'"),
        ("label_smoothing", "needs a range: label_smoothing=LOW..HIGH"),
        ("weight_decay=0..1", "is on log scale, which begins above 0"),
        ("lr=1..0.1", "with LOW below HIGH"),
        ("lr=a..b", "two numbers. Received: lr=a..b"),
        ("crop=0.5..2", "two whole numbers"),
        ("lr=0.1..1:cubic", "`:log` or `:linear`"),
        ("label_smoothing=0..1", r"`label_smoothing` must be in \[0, 1\)"),
        ("optimizer=sgd,adamw", "`optimizer` must be one of nesterov"),
        ("batch_size=32", "needs two values or a range"),
        ("batch_size=[32", "a list that is not JSON"),
        ("epochs=2..9", "`--over epochs` is not possible: `--epochs` and `--coarse`"),
        ("val=0.1,0.2", r"`--over val` is not possible"),
        ("seeds=1,3", "`--over seeds` is not possible: a trial trains one network"),
        ("select=true,false", "`--over select` is not possible: a trial has no networks to choose from"),
        ("views=0..2", "`--over views` is not possible: only predictions after the training"),
        ("score=accuracy,log_loss", "`--over score` is not possible: trials are compared by one, that of `--score`"),
        ("deterministic=true,false", "`--over deterministic` is not possible"),
        ('head_weights={"label": 1, "kids": 2},null', "`head_weights` must be numbers by head"),
        ("momentum=0..0.9", r"`--over momentum` is given twice"),
    ],
)
def test_range_that_cannot_be_is_told(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        parse_over(["momentum=0.8,0.9", text])


def test_ends_of_ranges() -> None:
    found = Range(0.01, 1.0, True, False)
    assert [border(found, value) for value in (0.0157, 0.0159, 0.63, 0.64)] == ["low", "", "", "high"]
    assert widened(found, "low", lambda value: value > 0) == Range(0.001, 1.0, True, False)
    # Up to what fits, as exactly as it can be said; nothing where the range ends there already.
    assert widened(Range(0.1, 0.5, False, False), "low", lambda value: value >= 0.02).low == 0.02
    assert widened(Range(0.0, 0.5, False, False), "low", lambda value: value >= 0) is None
    assert widened(Range(8, 32, True, True), "high", lambda value: value <= 50) == Range(8, 50, True, True)
    below_one = widened(Range(0.5, 0.9, False, False), "high", lambda value: value < 1).high
    assert 0.999999 < below_one < 1
    assert narrowed(Range(0.0, 0.8, False, False), [0.05, 0.2], lambda value: value >= 0).low == 0.0
    assert narrowed(Range(0.0, 0.8, False, False), [0.05, 0.2], lambda value: value >= 0).high == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"the recipe has 0\.0"):
        around("weight_decay", 0.0)
