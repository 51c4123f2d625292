"""The command `kerascnn search`: mostly with a training that only pretends, whose best rate is known."""

import csv
import errno
import json
import math
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from tensorflow.errors import InvalidArgumentError

from apps import search as searching
from apps import trials
from apps.recipe import Recipe, load_choices
from apps.study import COARSE, FINE, Study, Trial
from apps.training import Trained

ROOT = Path(__file__).resolve().parent.parent
TINY = ("--set", "width=0.125", "--set", "batch_size=10", "--image-size", "16x16", "--set", "precision=float32")


@pytest.fixture
def trained(monkeypatch) -> list[Recipe]:
    """The recipes that were asked to be trained; their score depends on the rate alone, at best 0.3."""
    asked: list[Recipe] = []

    def train(recipe, data, train_index, val_index, folder, console, callbacks=()):
        assert folder.parent.is_dir()
        asked.append(recipe)
        if recipe.lr > 50:
            raise ValueError("Training diverged in epoch 1. Use a lower rate.")
        score = 0.9 - 0.1 * (math.log10(recipe.lr) - math.log10(0.3)) ** 2
        for epoch in range(recipe.epochs):
            for one in callbacks:
                one.on_epoch_end(epoch, {"val_accuracy": score, "val_macro_f1": score - 0.5, "val_loss": 0.0})
        return Trained(None, [], recipe.epochs, score, 0.0, 0.0)

    monkeypatch.setattr(trials, "train", train)
    monkeypatch.setattr(searching.keras.backend, "clear_session", lambda: None)  # half a second each
    return asked


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_best_recipe_is_a_file_that_compete_trains_alike(run_here, colours, trained, tmp_path) -> None:
    over = ("--over", "lr=1e-4..1e-2", "--over", "model=resnet9,airbench94", "--over", "label_smoothing=0..0.2")
    process = run_here(
        "search",
        colours,
        "--trials",
        10,
        "--fine",
        3,
        "--epochs",
        8,
        *over,
        *TINY,
        "--set",
        "lr=0.0095",
        "--set",
        "model=resnet9",
    )
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "searches" / "colours"
    found = rows(folder)
    assert [row["stage"] for row in found] == [COARSE] * 10 + [FINE] * 3
    assert {row["epochs"] for row in found if row["state"] == "complete"} == {"2", "8"}
    assert "lies at the border of its range, 0.0001 to 0.01 (log): now 0.0001 to 0.1 (log)." in process.stderr
    # The recipe as it was trained, every field of it.
    best = max(trained[10:], key=lambda recipe: -abs(math.log10(recipe.lr / 0.3)))
    choices = load_choices(str(folder / "best.toml"))
    assert Recipe(**choices) == best
    assert best.epochs == 8
    result = json.loads((folder / "result.json").read_text())
    assert result["values"]["lr"] == best.lr
    assert result["stage"] == FINE
    command = re.search(r"^wrote     \S+best.toml: (.+)$", process.stdout, re.MULTILINE)[1]
    assert command == f"kerascnn compete {colours} --recipe searches/colours/best.toml"
    assert re.search(r"^  lr +0\.\d+ ", process.stdout, re.MULTILINE)
    assert sorted(path.name for path in folder.iterdir() if "lock" not in path.name) == [
        *("best.toml", "result.json", "search.json", "study.journal", "trials.csv"),
    ]
    finished = run_here("search", colours, "--resume", "--out", folder)
    assert (finished.returncode, finished.stderr) == (
        2,
        f"kerascnn: error: {folder} is finished; there is nothing to go on with.\n",
    )


def test_stopped_search_goes_on(run_here, colours, trained, tmp_path, monkeypatch) -> None:
    pretend = trials.train

    def stop_at_third(*arguments, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return pretend(*arguments, **options)

    monkeypatch.setattr(trials, "train", stop_at_third)
    out = tmp_path / "mine"
    options = ("--trials", 4, "--fine", 1, "--epochs", 4, "--out", out, "--seed", 3)
    process = run_here("search", colours, *options, *TINY)
    assert process.returncode == 130
    assert f"Go on with: kerascnn search {colours} --resume --out {out}" in process.stderr
    assert (out / "best.toml").is_file()
    assert [row["state"] for row in rows(out)] == ["complete", "complete", "interrupted"]

    refused = run_here("search", colours, *options, *TINY)
    assert refused.returncode == 2
    assert "exists. Choose another `--out`, or go on with it by `--resume`." in refused.stderr
    other = run_here("search", colours, "--resume", "--out", out, "--trials", 9, "--set", "width=0.25")
    assert other.returncode == 2
    assert "trials is 4, asked for 9; width is 0.125, asked for 0.25" in other.stderr

    monkeypatch.setattr(trials, "train", pretend)
    process = run_here("search", colours, *options, *TINY, "--resume")  # the same command goes on
    assert process.returncode == 0, process.stderr
    found = rows(out)
    states = ["complete", "complete", "interrupted", "complete", "complete", "complete"]
    assert [row["state"] for row in found] == states
    assert found[2]["lr"] in {found[3]["lr"], found[4]["lr"]}
    assert {recipe.seed for recipe in trained} == {3}


def test_search_in_a_database_is_joined_without_its_folder(run_here, colours, trained, tmp_path, monkeypatch) -> None:
    storage = ("--storage", "sqlite:///search.db?timeout=61234")  # an option's value might be a password
    options = ("--trials", 4, "--fine", 1, "--epochs", 4, "--seed", 3, *TINY)
    monkeypatch.setattr(sys, "argv", ["kerascnn", "search", "colours", f"--storage={storage[1]}"])
    begun = run_here("search", colours, *options, "--minutes", 0.000001, *storage)
    assert begun.returncode == 0, begun.stderr
    assert len(trained) == 1  # the first one always may
    said = "--resume --out searches/colours --storage 'sqlite:///search.db?timeout=***'"
    assert f"Go on with: kerascnn search {colours} {said}" in begun.stderr
    here, there = tmp_path / "searches/colours", tmp_path / "there/colours"
    assert not (here / "study.journal").exists()

    # Another machine has the data elsewhere, the storage, and no folder.
    moved = tmp_path / "copy"
    shutil.copytree(colours, moved)
    joined = run_here("search", moved, "--resume", "--out", there, *storage)
    assert joined.returncode == 0, joined.stderr
    assert [row["stage"] for row in rows(there)] == [COARSE] * 4 + [FINE]
    assert len(trained) == 5
    assert (there / "search.json").read_bytes() == (here / "search.json").read_bytes()
    assert json.loads((there / "result.json").read_text())["command"].startswith(f"kerascnn compete {moved} ")
    # The first takes part again, finds nothing left to do, and has the result as well.
    again = run_here("search", colours, "--resume", *storage)
    assert again.returncode == 0, again.stderr
    assert len(trained) == 5
    assert rows(here) == rows(there)
    texts = [path.read_text() for path in (*here.iterdir(), *there.iterdir()) if path.is_file()]
    assert not any("61234" in text for text in [*texts, *(one.stdout + one.stderr for one in (begun, joined, again))])


def test_search_in_a_database_is_known_by_name_data_and_folder(run_here, colours, trained, tmp_path) -> None:
    storage = ("--storage", "sqlite:///search.db")
    options = ("--trials", 2, "--fine", 0, "--epochs", 4, *TINY)
    assert run_here("search", colours, *options, *storage, "--minutes", 0.000001).returncode == 0
    second = run_here("search", colours, *options, *storage, "--minutes", 0.000001, "--sampler", "tpe")
    assert "searches/colours-2 --storage sqlite:///search.db" in second.stdout
    elsewhere = tmp_path / "elsewhere"
    other = elsewhere / "colours"
    other.mkdir(parents=True)
    shutil.copy(tmp_path / "searches/colours-2/search.json", other)
    changed = tmp_path / "changed"
    shutil.copytree(colours, changed)
    table = (changed / "train.csv").read_text()
    (changed / "train.csv").write_text(table.replace("000,red", "000,blue"))
    for arguments, message in (
        ([colours, *options, "--out", elsewhere / "colours-2"], "The storage has a search colours-2. Choose another"),
        ([colours, "--resume", "--out", "shapes"], "There is no search shapes in sqlite:///search.db."),
        (["digits", "--resume"], "There is no interrupted search of digits in sqlite:///search.db."),
        ([colours, "--resume", "--out", other], f"{other} is not of the search in sqlite:///search.db."),
        ([colours, "--resume", "--trials", 3], "trials is 2, asked for 3"),
        ([changed, "--resume", "--out", elsewhere / "colours-2"], "The pictures or labels of"),
    ):
        process = run_here("search", *arguments, *storage)
        assert process.returncode == 2
        assert message in process.stderr
        assert process.stderr.count("\n") == 1
    without = run_here("search", colours, "--resume", "--out", "searches/colours")
    assert "keeps its trials in sqlite:///search.db: give that by `--storage`." in without.stderr
    assert not (elsewhere / "colours-2").exists()
    assert len(trained) == 2


def test_storage_that_cannot_be_used_is_one_line_before_the_data_are_read(run_here, tmp_path, monkeypatch) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for url, message in (
        ("search.db", "`--storage` must be a URL such as sqlite:///search.db"),
        ("postgresql:/me:secret@host", "`--storage` must be a URL such as sqlite:///search.db"),
        ("redis://me:secret@host/0", "another kind of database that SQLAlchemy knows. Received: redis."),
        ("sqlite://", "`--storage` needs a file, which other processes find"),
        ("sqlite:///no/search.db", f"There is no folder {tmp_path}/no to write search.db to."),
        ("sqlite:///text.db", "`--storage sqlite:///text.db` cannot be used: file is not a database"),
        (
            "postgresql+psycopg://me:secret@host/db?sslpassword=secret",
            "`--storage postgresql+psycopg://me:***@host/db?sslpassword=***` needs a driver: "
            "pip install 'psycopg[binary]'",
        ),
    ):
        process = run_here("search", tmp_path / "no-such-data", "--storage", url)
        assert process.returncode == 2
        assert message in process.stderr
        assert process.stderr.count("\n") == 1
        assert "secret" not in process.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"text.db", "text.db.lock"}


@pytest.mark.parametrize("for_good", [True, False])
def test_database_that_breaks_down_ends_the_search_with_the_way_on_and_no_trial_as_failed(
    run_here, colours, trained, tmp_path, monkeypatch, for_good
) -> None:
    pretend = trials.train

    def break_down(*arguments, **options):
        if len(trained) == 1 and for_good:
            (tmp_path / "search.db").write_text("no database " * 100)
        elif len(trained) == 1:
            raise StorageInternalError("for a moment")
        return pretend(*arguments, **options)

    monkeypatch.setattr(trials, "train", break_down)
    options = ("--trials", 3, "--fine", 0, "--epochs", 4, "--storage", "sqlite:///search.db")
    process = run_here("search", colours, *options, *TINY)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "The storage cannot be used any more: " in process.stderr
    assert "--resume --out searches/colours --storage sqlite:///search.db" in process.stderr
    assert [row["state"] for row in rows(tmp_path / "searches/colours")] == ["complete"]


def test_diverged_trials_count_and_none_at_all_is_an_error(run_here, colours, trained, tmp_path) -> None:
    process = run_here(
        "search", colours, "--trials", 3, "--fine", 1, "--over", "lr=60..100", "--set", "model=resnet9", *TINY
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "None of 3 trials has a score. First: Training diverged in epoch 1." in process.stderr
    assert [row["state"] for row in rows(tmp_path / "searches/colours")] == ["failed"] * 3


def test_hopeless_trials_are_pruned_but_never_in_the_warm_up(run_here, colours, trained, tmp_path) -> None:
    over = ("--over", "lr=1e-9..1", "--set", "warmup=0.5", "--set", "model=resnet9")
    process = run_here("search", colours, "--trials", 9, "--fine", 0, "--epochs", 6, "--coarse", 6, *over, *TINY)
    assert process.returncode == 0, process.stderr
    found = rows(tmp_path / "searches/colours")
    pruned = [row for row in found if row["state"] == "pruned"]
    assert pruned
    assert {row["epochs"] for row in pruned} == {"4"}  # the first after the three of the warm-up
    assert {row["epochs"] for row in found if row["state"] == "complete"} == {"6"}


def test_time_that_is_over_ends_the_search_until_it_goes_on(run_here, colours, trained, tmp_path, monkeypatch) -> None:
    pretended = trials.train
    monkeypatch.setattr(searching.Clock, "may_begin", lambda clock, study, trainer, stage: len(trained) < 3)
    process = run_here("search", colours, "--minutes", 1, "--epochs", 4, *TINY)
    assert process.returncode == 0, process.stderr
    assert len(trained) == 3
    assert "No fine trial has a score: the best is that of a short training." in process.stderr
    folder = tmp_path / "searches/colours"
    assert load_choices(str(folder / "best.toml"))["epochs"] == 4
    # All that were asked for are not there yet, so the search can go on, by the command that it says.
    assert not (folder / "result.json").exists()
    said = "17 coarse and 5 fine trials of those asked for are left: the time is over. Go on with: kerascnn search {}"
    assert said.format(f"{colours} --resume --out searches/colours") in process.stderr
    monkeypatch.undo()
    monkeypatch.setattr(trials, "train", pretended)
    monkeypatch.setattr(searching.keras.backend, "clear_session", lambda: None)
    monkeypatch.chdir(tmp_path)
    process = run_here("search", colours, "--resume")
    assert process.returncode == 0, process.stderr
    assert [row["stage"] for row in rows(folder)] == [COARSE] * 20 + [FINE] * 5
    assert "are left" not in process.stderr
    assert (folder / "result.json").is_file()


def test_trials_that_another_process_ends_last_are_told(run_here, colours, trained, tmp_path, monkeypatch) -> None:
    def work(study, *_):
        other = Study(study.folder, {}, study.trials)
        while trial := other.take():
            other.finish(trial, "complete", 0.5 + 0.1 * trial.number)

    monkeypatch.setattr(searching, "work", work)
    process = run_here("search", colours, "--trials", 3, "--fine", 0, "--epochs", 4, *TINY)
    assert process.returncode == 0, process.stderr
    assert len(re.findall(r"^  coarse trial \d: lr .*: score 0\.\d000", process.stdout, re.MULTILINE)) == 3
    assert "score 0.7000 on held-out" in (tmp_path / "searches/colours/best.toml").read_text()


def test_any_error_of_a_training_is_a_failed_trial_but_a_full_disk_is_not(
    run_here, colours, trained, tmp_path, monkeypatch
) -> None:
    pretend, errors = trials.train, [TypeError("no\nnumber"), InvalidArgumentError(None, None, "shapes"), MemoryError()]

    def train(*arguments, **options):
        if errors:
            raise errors.pop(0)
        return pretend(*arguments, **options)

    monkeypatch.setattr(trials, "train", train)
    process = run_here("search", colours, "--trials", 4, "--fine", 0, "--epochs", 4, *TINY)
    assert process.returncode == 0, process.stderr
    found = rows(tmp_path / "searches/colours")
    assert [row["state"] for row in found] == ["failed"] * 3 + ["complete"]
    assert [row["why"] for row in found[:3]] == ["TypeError: no number", "InvalidArgumentError: shapes", "MemoryError"]
    errors.append(OSError(errno.ENOSPC, "No space left on device"))
    process = run_here("search", colours, "--trials", 2, "--fine", 0, "--epochs", 4, "--out", "full", *TINY)
    assert process.returncode == 2
    assert "No space left on device. 0 trials are kept. Go on with: kerascnn search" in process.stderr
    assert [row["state"] for row in rows(tmp_path / "full")] == ["interrupted"]


def test_default_that_is_settled_to_nothing_is_not_searched(run_here, colours, trained, tmp_path) -> None:
    options = ("--trials", 2, "--fine", 0, "--epochs", 4, "--set", "weight_decay=0", *TINY)
    process = run_here("search", colours, *options)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "searches/colours/search.json").read_text())["over"] == ["lr"]
    assert {recipe.weight_decay for recipe in trained} == {0.0}
    asked = run_here("search", colours, "--over", "weight_decay", *options)
    assert asked.returncode == 2
    assert "`--over weight_decay` needs a range" in asked.stderr


def test_trials_are_compared_by_the_score_of_the_competition(run_here, colours, trained, tmp_path, monkeypatch) -> None:
    reported = []
    monkeypatch.setattr(Trial, "report", lambda trial, score: reported.append(score))
    process = run_here("search", colours, "--trials", 1, "--fine", 0, "--epochs", 4, "--score", "macro_f1", *TINY)
    assert process.returncode == 0, process.stderr
    assert "scored by macro_f1" in process.stdout
    (recipe,) = trained
    assert recipe.score == "macro_f1"
    expected = 0.4 - 0.1 * (math.log10(recipe.lr) - math.log10(0.3)) ** 2
    assert reported == pytest.approx([expected])
    assert load_choices(str(tmp_path / "searches/colours/best.toml"))["score"] == "macro_f1"


def test_clock_leaves_half_of_the_time_to_the_fine_stage(monkeypatch) -> None:
    class Ended:
        epochs, seconds = 5, 10.0

    class Trials:
        def finished(self, stage):
            return [Ended()] if stage == COARSE else []

    class Sizes:
        coarse_epochs, epochs, plan = 5, 20, type("Plan", (), {"splits": [None]})

    now = [0.0]
    monkeypatch.setattr(searching.time, "monotonic", lambda: now[0])
    clock = searching.Clock(0.0, 2.0, two_stages=True)
    allowed = []
    for now[0] in (49.0, 51.0, 79.0, 81.0):
        allowed.append([clock.may_begin(Trials(), Sizes(), stage) for stage in (COARSE, FINE)])
    assert allowed == [[True, True], [False, True], [False, True], [False, False]]
    assert searching.Clock(0.0, None, two_stages=True).may_begin(Trials(), Sizes(), FINE)


def test_rates_correspond_to_the_length_and_those_of_shifts_stay(run_here, colours, trained, tmp_path) -> None:
    """With muon_sgd a quarter of the epochs takes half of the rate; the product with `bias_rate` does not change."""
    settled = ("--set", "lr=0.1", "--set", "bias_rate=100", "--set", "head_rate=10", "--set", "model=airbench94")
    options = ("--trials", 3, "--fine", 1, "--epochs", 8, "--over", "lr=0.02..0.5", "--seed", 1)
    process = run_here("search", colours, *options, *settled, *TINY)
    assert process.returncode == 0, process.stderr
    assert trained[0].lr == pytest.approx(0.05)  # the recipe's own comes first
    for row, recipe in zip(rows(tmp_path / "searches/colours"), trained, strict=True):
        assert recipe.lr == pytest.approx(float(row["lr"]) * (0.5 if row["stage"] == COARSE else 1.0))
        assert recipe.lr * recipe.bias_rate == pytest.approx(10)
        assert recipe.lr * recipe.head_rate == pytest.approx(1)


def test_what_cannot_be_searched_is_one_line_before_the_data_are_read(run_here, tmp_path) -> None:
    for options, message in (
        (["--over", "weigth_decay"], "Did you mean 'weight_decay'?"),
        (["--over", "model=resnet9,resnet81"], "resnet81"),
        (["--trials", 0], "`--trials` must be at least 1"),
        (["--coarse", 2.5], "`--coarse` must be a fraction of the epochs or a number of them. Received: 2.5."),
        (["--sampler", "grid"], "`--sampler` must be one of random, tpe"),
        (["--minutes", 0], "`--minutes` must be positive"),
        (["--val", 0], "needs pictures held out"),
        (["--over", "transfer=none,all"], "Add `--no-from-scratch` if they do."),
        (["--resume"], "There is no interrupted search of no-such-data in searches/."),
        (["--resume", "--out", "nowhere"], "nowhere is the folder of no search: it has no search.json."),
    ):
        process = run_here("search", tmp_path / "no-such-data", *options)
        assert process.returncode == 2
        assert message in process.stderr
        assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_range_that_does_not_fit_the_data_is_one_line_before_training(run_here, colours, trained, tmp_path) -> None:
    for over, message in (
        ("crop=0..40", "`crop` must be at most 15 for pictures of 16x16. Received: 40"),
        ('head_weights=[null, {"label": 2, "kid": 1}]', "`head_weights` has an entry for 'kid', which is no head."),
        ("batch_size=16,1000", "`batch_size` can be at most 60 with 60 pictures. Received: batch_size=1000."),
    ):
        process = run_here("search", colours, "--over", over, "--epochs", 4, *TINY, "--trials", 1, "--fine", 0)
        assert process.returncode == 2
        assert message in process.stderr
        assert process.stderr.count("\n") == 1
    assert trained == []
    assert not (tmp_path / "searches").exists()


def test_pictures_of_several_sizes_are_decoded_at_each(run_here, colours, monkeypatch) -> None:
    sizes = []

    def train(recipe, data, *arguments, **options):
        sizes.append((recipe.image_size, data.pictures.shape[1:3]))
        return Trained(None, [], 1, 0.5, 0.0, 0.0)

    monkeypatch.setattr(trials, "train", train)
    monkeypatch.setattr(searching.keras.backend, "clear_session", lambda: None)
    over = ("--over", "image_size=[[16, 16], [24, 16]]", "--trials", 4, "--fine", 0)
    process = run_here("search", colours, *over, "--epochs", 4, *TINY)
    assert process.returncode == 0, process.stderr
    assert {asked for asked, _ in sizes} == {(16, 16), (24, 16)}
    assert all(asked == tuple(decoded) for asked, decoded in sizes)


@pytest.mark.parametrize("storage", [(), ("--storage", "sqlite:///search.db")], ids=["folder", "database"])
def test_other_process_trains_for_real(run_here, colours, trained, tmp_path, monkeypatch, storage) -> None:
    """This one pretends, and ends its first trial when the other process has begun the second."""
    pretend = trials.train
    (tmp_path / "apps").mkdir()  # of the user, and none of ours
    (tmp_path / "apps/__init__.py").write_text("raise SystemExit('the apps of the user')")

    def wait_for_other(recipe, data, train_index, val_index, folder, *arguments, **options):
        patience = time.monotonic() + 60
        while not (folder.parent.parent / "coarse-1").is_dir() and time.monotonic() < patience:
            time.sleep(0.05)
        return pretend(recipe, data, train_index, val_index, folder, *arguments, **options)

    monkeypatch.setattr(trials, "train", wait_for_other)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    options = ("--trials", 2, "--fine", 0, "--epochs", 1, "--coarse", 1, "--set", "model=lenet5", "--processes", 2)
    process = run_here("search", colours, *options, *storage, *TINY)
    assert process.returncode == 0, process.stderr
    assert "ended early" not in process.stderr
    assert len(trained) == 1
    found = rows(tmp_path / "searches/colours")
    assert [(row["stage"], row["state"], row["epochs"]) for row in found] == [
        ("coarse", "complete", "1"),
        ("coarse", "complete", "1"),
    ]
    assert all(0 < float(row["score"]) <= 1 for row in found)
    assert "trials    2 complete, 0 pruned, 0 failed" in process.stdout
