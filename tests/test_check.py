"""The command `kerascnn check`, and what `kerascnn compete` says of its data before it trains."""

import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import apps.audit
from apps.audit import BRIEF_STREAMED, brief_audit, collect
from apps.console import Console
from apps.data import Data
from apps.first_steps import falls, few_pictures, first_losses, first_steps, overfit
from apps.network import build_network
from apps.plan import make_plan
from pipelines import open_dataset
from pipelines.audit import _in_class_folders, audit_briefly

SMALL = ("--set", "model=resnet9", "--set", "width=0.125", "--set", "batch_size=8", "--image-size", 16)


@pytest.fixture
def faulty(colours):
    """The colours with planted faults: a hidden picture that is known, two labels for equal pictures, a broken file."""
    shutil.copy(colours / "train/001.png", colours / "test/004.png")
    shutil.copy(colours / "train/003.png", colours / "train/005.png")  # red as blue
    (colours / "train/007.png").write_bytes(b"nothing")
    with Image.open(colours / "train/009.png") as picture:
        picture.resize((20, 24)).save(colours / "train/012.png")  # both red
    return colours


@pytest.fixture
def plan_of(colours):
    return lambda **options: make_plan(
        open_dataset(colours),
        {"model": "resnet9", "width": 0.125, "image_size": (16, 16)},
        False,
        Console(quiet=True),
        **options,
    )


def test_clean_data_are_checked_without_a_word_of_trouble(run_here, colours, tmp_path) -> None:
    process = run_here("check", colours, *SMALL, "--json", "found.json")
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    assert not any(line.startswith(("serious", "warning")) for line in process.stdout.splitlines())
    steps = [line[:6] for line in process.stdout.splitlines() if line.startswith("step ")]
    assert steps == [f"step {number}" for number in range(1, 7)]
    assert f"kerascnn search {colours}" in process.stdout
    written = json.loads((tmp_path / "found.json").read_text())
    assert {finding["severity"] for finding in written["findings"]} == {"note"}
    loss, expected = written["first_steps"]["losses"]["label"]
    assert expected == pytest.approx(np.log(3))
    assert loss == pytest.approx(expected, abs=0.3)
    assert written["first_steps"]["accuracy"] == 1
    assert written["first_steps"]["rate"] > 0

    again = run_here("check", colours, "--json", "found.json")
    assert again.returncode == 2
    assert again.stderr == "kerascnn: error: found.json exists. Choose another name, or say `--overwrite`.\n"


def test_planted_faults_are_found_most_serious_first_with_exit_code_1(run_here, faulty, tmp_path) -> None:
    process = run_here("check", faulty, *SMALL, "--no-training", "--json", "found.json")
    assert process.returncode == 1, process.stderr
    findings = json.loads((tmp_path / "found.json").read_text())["findings"]
    order = [("serious", "warning", "note").index(finding["severity"]) for finding in findings]
    assert order == sorted(order)
    found = {finding["kind"]: finding for finding in findings}
    assert found["equal pictures with different labels"]["examples"] == ["003 (red) = 005 (blue)"]
    assert found["hidden pictures equal to labelled ones"]["examples"] == ["004 = 001"]
    assert found["near duplicates among labelled pictures"]["examples"] == ["009 = 012"]
    assert "007.png" in found["unreadable pictures"]["examples"][0]
    assert "such as 003 (red) = 005 (blue)" in process.stdout
    assert "step 1" not in process.stdout


def test_val_file_that_parts_twins_and_groups_is_found(run_here, faulty, tmp_path) -> None:
    table = pd.read_csv(faulty / "train.csv", dtype=str)
    table["person"] = [str(place // 4) for place in range(60)]
    table.to_csv(faulty / "train.csv", index=False)
    (tmp_path / "val.csv").write_text("image\n" + "\n".join(f"{place:03d}" for place in range(9, 12)) + "\n")
    options = ("--set", "val=val.csv", "--group", "person", "--no-training", "--json", "found.json")
    assert run_here("check", faulty, *SMALL, *options).returncode == 1
    found = {one["kind"]: one for one in json.loads((tmp_path / "found.json").read_text())["findings"]}
    assert found["held-out pictures known from training"]["examples"] == ["009"]
    assert found["groups on both sides of the split"]["examples"] == ["2"]
    assert found["duplicates in different groups"]["count"] == 4


def test_compete_writes_what_the_audit_said(digits_run) -> None:
    assert json.loads((digits_run[0] / "runs/digits/result.json").read_text())["audit"] == []
    lines = [line for line in digits_run[1].stdout.splitlines() if line.startswith("audit")]
    assert len(lines) == 1
    assert "nothing serious" in lines[0]


def test_short_audit_says_what_changes_the_score(faulty, plan_of, capsys) -> None:
    lines = brief_audit(plan_of(), Console())
    assert any("equal to a labelled one" in line for line in lines)
    assert any("equal to one with another label" in line for line in lines)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("audit")] == [f"audit     {line}" for line in lines]


def test_short_audit_never_stops_a_run(plan_of, monkeypatch, capsys) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(apps.audit, "audit_briefly", fail)
    assert brief_audit(plan_of(), Console()) == []
    assert capsys.readouterr().err == "warning: The audit failed and says nothing (MemoryError: none left).\n"


def test_pictures_on_disk_are_looked_at_alike_and_some_of_them_in_short(faulty, plan_of, monkeypatch, capsys) -> None:
    plan = plan_of(memory=0)
    in_memory, on_disk = (collect(one, Console(quiet=True)) for one in (plan_of(), plan))
    np.testing.assert_array_equal(in_memory.look.thumbnails, on_disk.look.thumbnails)
    np.testing.assert_array_equal(in_memory.hidden_look.digests, on_disk.hidden_look.digests)
    assert audit_briefly(in_memory) == audit_briefly(on_disk)
    assert BRIEF_STREAMED > 100
    monkeypatch.setattr(apps.audit, "BRIEF_STREAMED", 20)
    some = collect(plan, Console(quiet=True), brief=True)
    assert (len(some.ids), len(some.look), len(some.labels["label"]), len(some.hidden_ids)) == (20, 20, 20, 9)
    places = np.flatnonzero(np.isin(plan.competition.train["id"], some.ids))
    np.testing.assert_array_equal(some.labels["label"], plan.data.labels["label"][places])
    for (train, held), (all_train, all_held) in zip(some.splits, plan.splits, strict=True):
        assert set(places[train]) <= set(all_train)
        assert set(places[held]) <= set(all_held)
        assert len(train) + len(held) == 20
    brief_audit(plan, Console())
    assert "a sample of up to 20 each, since they are read from disk" in capsys.readouterr().out


def test_arrays_and_shards_are_sources_too(run_here, colours, tmp_path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), "uint8")
    pictures[7] = pictures[3]
    np.savez(tmp_path / "arrays.npz", x_train=pictures, y_train=np.arange(40) % 2, x_test=pictures[:4])
    process = run_here("check", "arrays.npz", *SMALL, "--no-training")
    assert process.returncode == 1
    assert "4 pictures of the 4 hidden ones (100.0 %) are equal to a labelled one." in process.stdout
    assert run_here("records", colours, "shards", "--processes", 1).returncode == 0
    assert run_here("check", "shards", *SMALL, "--no-training").returncode == 0


def test_order_of_class_folders_is_no_hint() -> None:
    """They are listed one after the other."""
    listed = SimpleNamespace(ids=np.array(["a/1.png", "b/1.png"]), labels={"label": np.array([0, 1])})
    assert _in_class_folders(SimpleNamespace(**vars(listed), classes={"label": ["a", "b"]}))
    assert not _in_class_folders(SimpleNamespace(**vars(listed), classes={"label": ["b", "c"]}))


def test_first_losses_are_those_of_keras_and_leave_missing_labels_out(plan_of) -> None:
    plan = plan_of()
    data = plan.data.with_keras_names()
    labels = data.labels["label"]
    labels[3] = -1
    keras.utils.set_random_seed(0)
    model = build_network(plan.recipe, data, "float32")
    start = model.get_weights()
    ((loss, expected),) = first_losses(model, data, np.arange(60)).values()
    model.set_weights(start)
    known = np.delete(np.arange(60), 3)
    logits = np.asarray(model(data.pictures.astype("float32"), training=True)["label"])[known]
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels[known], logits)
    assert loss == pytest.approx(float(own), rel=1e-4)
    assert expected == pytest.approx(np.log(3))


def test_pictures_that_are_all_alike_are_not_over_fitted(plan_of, monkeypatch) -> None:
    monkeypatch.setattr("apps.first_steps.MOST_FEW_STEPS", 6)
    plan = plan_of()
    plan.data.pictures[:] = 100
    data = plan.data.with_keras_names()
    accuracy, steps = overfit(build_network(plan.recipe, data, "float32"), data, np.arange(30), 0, Console(quiet=True))
    assert accuracy < 1
    assert steps == 6


def test_what_fails_in_the_first_steps_is_said_with_what_to_do(plan_of, monkeypatch) -> None:
    plan = plan_of()
    monkeypatch.setattr("apps.first_steps.overfit", lambda *arguments: (0.5, 200))
    tried = []

    def only_a_tenth(model, recipe, *arguments: object) -> tuple[bool, tuple[float, float], int]:
        tried.append(recipe.lr)
        return len(tried) == 2, (2.0, 1.0), 30

    monkeypatch.setattr("apps.first_steps.falls", only_a_tenth)
    steps = first_steps(plan, Console(quiet=True))
    assert [one.kind for one in steps.findings] == ["few pictures are not over-fitted", "another rate is better"]
    assert tried == pytest.approx([plan.recipe.lr, plan.recipe.lr / 10])
    assert steps.rate == tried[1]
    monkeypatch.setattr("apps.first_steps.falls", lambda *arguments: (False, (2.0, 2.0), 100))
    steps = first_steps(plan, Console(quiet=True))
    assert [one.kind for one in steps.findings][1:] == ["no rate makes the loss fall"]
    assert steps.rate is None


def test_pictures_without_labels_are_not_over_fitted_and_empty_heads_do_not_count(plan_of) -> None:
    """Two of 60 pictures have a label of the second head, none of the third one."""
    data = plan_of().data
    second = np.full(60, -1, "int32")
    second[[7, 50]] = 0, 1
    first = np.where(np.arange(60) < 20, data.labels["label"], -1).astype("int32")
    labels = {"label": first, "second": second, "third": np.full(60, -1, "int32")}
    data = Data(data.pictures, labels, {head: ["x", "y", "z"] for head in labels})
    chosen = few_pictures(data, np.arange(60), 0)
    assert chosen.tolist() == [*range(20), 50]
    inputs = keras.Input(data.pictures.shape[1:])
    values = keras.layers.Flatten()(keras.layers.Rescaling(1 / 64, -2)(inputs))
    model = keras.Model(inputs, {head: keras.layers.Dense(3, name=head)(values) for head in labels})
    assert overfit(model, data, np.arange(60), 0, Console(quiet=True))[0] == 1
    nothing = Data(data.pictures, {"third": labels["third"]}, {"third": ["x", "y", "z"]})
    assert overfit(model, nothing, np.arange(60), 0, Console(quiet=True)) == (None, 0)


def test_dropout_does_not_hide_that_pictures_were_over_fitted(plan_of) -> None:
    data = plan_of().data
    inputs = keras.Input(data.pictures.shape[1:])
    values = keras.layers.Flatten()(keras.layers.Rescaling(1 / 64, -2)(inputs))
    outputs = {"label": keras.layers.Dense(3, name="label")(keras.layers.Dropout(0.99, seed=0)(values))}
    assert overfit(keras.Model(inputs, outputs), data, np.arange(60), 0, Console(quiet=True))[0] == 1


def test_loss_of_many_classes_must_fall_by_more_than_it_scatters(plan_of, monkeypatch) -> None:
    plan = plan_of()
    noise = np.random.default_rng(0).normal(0, 0.03, 100)
    model = SimpleNamespace(reset_metrics=lambda: None)
    monkeypatch.setattr("apps.first_steps.compile_network", lambda *given: None)
    monkeypatch.setattr("apps.first_steps.training_batches", lambda *given: iter([(0, 0)] * 100))

    def verdict(classes: int, fall: float) -> bool:
        losses = iter(np.log(classes) + noise - fall * np.arange(100) / 100)
        model.train_on_batch = lambda *given, **options: {"loss": next(losses)}
        data = SimpleNamespace(num_classes={"label": classes})
        return falls(model, plan.recipe, data, np.arange(60), Console(quiet=True))[0]

    assert verdict(5000, 0.3)
    assert not verdict(5000, 0.0)
    assert not verdict(50, 0.3)
    monkeypatch.setattr("apps.first_steps.overfit", lambda *given: (1.0, 9))
    monkeypatch.setattr("apps.first_steps.falls", lambda *given: (False, (2.0, 2.0), 100))
    for many, severity in ((100, "serious"), (2, "warning")):
        monkeypatch.setattr("apps.first_steps.MANY_CLASSES", many)
        assert [one.severity for one in first_steps(plan, Console(quiet=True)).findings] == [severity]


def test_check_holds_out_what_compete_would(run_here, colours, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("apps.check.check", lambda data, choices, **options: asked.append(choices) or 0)
    assert run_here("check", colours, "--val", 3, "--seed", 7).returncode == 0
    assert (asked[0]["val"], asked[0]["seed"]) == (3, 7)


def test_audit_does_not_copy_pictures_in_memory(plan_of, monkeypatch) -> None:
    seen = []
    look_at = apps.audit.look_at
    monkeypatch.setattr(
        apps.audit, "look_at", lambda pictures, *given: seen.append(pictures) or look_at(pictures, *given)
    )
    plan = plan_of()
    collect(plan, Console(quiet=True), brief=True)
    assert np.shares_memory(seen[0], plan.data.pictures)
    assert np.shares_memory(seen[1], plan.test_pictures)
