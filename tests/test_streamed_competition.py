"""A competition from disk, from shards and from memory: the regime changes nothing but where pictures are kept."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

QUICK = ("--epochs", 2, "--batch-size", 8, "--image-size", 16)
CHOICES = (
    "--set",
    "fill=wrap",
    "--set",
    "mixup=0.2",
    "--set",
    "erasing=0.5",
    "--set",
    "noise=4",
    "--balance",
    "sampling",
)


@pytest.fixture
def held_out(colours) -> Path:
    """A file that lists what to hold out."""
    path = colours.parent / "held out.csv"
    path.write_text("image\n" + "\n".join(f"{number:03d}" for number in range(50, 60)) + "\n")
    return path


def test_a_run_from_disk_and_one_from_shards_equal_one_from_memory(run_cli, colours, held_out, tmp_path) -> None:
    from pipelines import open_dataset
    from pipelines.record_writer import write_records

    write_records(open_dataset(colours), tmp_path / "data", processes=1)
    runs = {}
    for name, data, memory in (
        ("memory", colours, ()),
        ("disk", colours, ("--memory", 0)),
        ("shards", tmp_path / "data", ("--memory", 0)),
    ):
        process = run_cli("compete", data, *QUICK, *CHOICES, *memory, "--val", held_out, "--out", tmp_path / name)
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
        assert "10 held out for validation" in process.stdout
        assert "augment   random crop, alternating flip, gaussian noise, random erasing, mixup" in process.stdout
        assert ("kept in memory" in process.stdout) == (name == "memory")
        assert ("read from disk in every epoch" in process.stdout) == (name != "memory")
        assert "score     label:" in process.stdout
        runs[name] = tmp_path / name
    histories = {name: pd.read_csv(run / "history.csv").drop(columns="seconds") for name, run in runs.items()}
    pd.testing.assert_frame_equal(histories["memory"], histories["disk"], rtol=1e-4)
    recipe = json.loads((runs["disk"] / "recipe.json").read_text())["recipe"]
    assert (recipe["fill"], recipe["noise"], recipe["balance"]) == ("wrap", 4, "sampling")
    submissions = {(run / "submission.csv").read_text() for run in runs.values()}
    assert len(submissions) == 1


def test_hidden_pictures_have_the_memory_that_the_labelled_leave(colours) -> None:
    import pipelines
    from apps.console import Console
    from apps.plan import make_plan
    from pipelines.stream import Streamed

    competition = pipelines.open_dataset(colours)
    picture = 16 * 16 * 3
    labelled, hidden = len(competition.train) * picture, len(competition.test) * picture
    choices = {"image_size": (16, 16), "model": "resnet9", "width": 0.125}
    for memory, streamed in ((labelled + hidden, False), (labelled + hidden - 1, True)):
        plan = make_plan(competition, choices, False, Console(quiet=True), memory)
        assert isinstance(plan.data.pictures, np.ndarray)
        assert isinstance(plan.test_pictures, Streamed) == streamed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "cutot=8"), "no field 'cutot'. Did you mean 'cutout'?"),
        (("--set", "cutout"), "`--set` needs FIELD=VALUE, such as cutout=8. Received: 'cutout'"),
        (("--set", "fill=nearest"), "`fill` must be one of constant, edge, reflect, symmetric, wrap"),
        (("--balance", "much"), "`balance` must be one of none, weights, sampling"),
        (
            ("--val", "missing.csv"),
            "`val` must be a fraction, a number of folds, 0, or a CSV file, and there is no file",
        ),
    ],
)
def test_wrong_settings_are_one_line(run_here, colours, options, message) -> None:
    process = run_here("compete", colours, *options, "--dry-run")
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stderr.count("\n") == 1


def test_show_writes_a_row_for_every_step(run_here, colours, tmp_path) -> None:
    from PIL import Image

    out = tmp_path / "sheet.png"
    process = run_here("show", colours, "--out", out, "--count", 3, "--set", "cutout=4", "--set", "cutmix=1")
    assert process.returncode == 0, process.stderr
    assert "3 pictures, random_crop, horizontal_flip, cutout, cutmix" in process.stdout
    few = np.asarray(Image.open(out)).shape
    again = run_here("show", colours, "--out", out)
    assert again.returncode == 2
    assert "sheet.png exists. Choose another name, or say `--overwrite`" in again.stderr
    assert run_here("show", colours, "--out", out, "--count", 3, "--overwrite").returncode == 0
    assert np.asarray(Image.open(out)).shape[0] < few[0]  # two rows less


def test_rows_of_the_sheet_show_what_training_sees(colours) -> None:
    """The captions name the shares of mixed pictures; a step on its own is applied to the picture itself."""
    from apps.plan import encode_labels
    from apps.resolve import resolve
    from apps.show import sheet_rows
    from pipelines import open_dataset

    competition = open_dataset(colours)
    recipe = resolve({"mixup": 5.0, "image_size": (8, 8), "crop": 0}, 60, (8, 8), [["a.", "b."]])
    pictures = np.stack([np.full((8, 8, 3), value, "uint8") for value in (0, 100, 200)])
    labels = {"label": encode_labels(competition)["label"][:3]}
    rows = {
        title: (shown, captions)
        for title, shown, captions in sheet_rows(pictures, labels, competition, recipe, np.arange(3))
    }
    assert list(rows) == ["as they are", "horizontal flip", "mixup", "all, epoch 1", "all, epoch 2", "all, epoch 3"]
    assert rows["as they are"][1] == ["red", "green", "blue"]
    np.testing.assert_array_equal(rows["horizontal flip"][0], pictures)
    shown, captions = rows["mixup"]
    for number, (value, caption) in enumerate(zip(shown[:, 0, 0, 0], captions, strict=True)):
        shares = {name: int(share) / 100 for share, name in (part.strip().split(" % ") for part in caption.split(","))}
        values = dict(zip(["red", "green", "blue"], (0, 100, 200), strict=True))
        assert len(shares) == 2 and list(values)[number] in shares
        assert sum(share * values[name] for name, share in shares.items()) == pytest.approx(value, abs=2)


def test_epochs_of_the_sheet_mirror_every_picture_in_turn(colours) -> None:
    """As training does with alternating flips: an epoch as it is, the next one mirrored."""
    from apps.plan import encode_labels
    from apps.resolve import resolve
    from apps.show import sheet_rows
    from pipelines import open_dataset

    competition = open_dataset(colours)
    recipe = resolve({"flips": "alternating", "crop": 0, "brightness": 1e-6}, 60, (8, 8), [["a.", "b."]])
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype("uint8")
    labels = {"label": encode_labels(competition)["label"][:6]}
    rows = {title: shown for title, shown, _ in sheet_rows(pictures, labels, competition, recipe, np.arange(6))}
    first, second, third = (rows[f"all, epoch {epoch}"] for epoch in (1, 2, 3))
    mirrored = (first == pictures[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 0 < mirrored.sum() < 6  # which picture begins mirrored is drawn
    np.testing.assert_array_equal(second, first[:, :, ::-1])
    np.testing.assert_array_equal(third, first)


def test_picture_without_a_label_is_captioned_so() -> None:
    from apps.show import _caption

    assert _caption(np.array([0.0, 0.0]), ["cat", "dog"]) == "?"
    assert _caption(np.array([0.3, 0.7]), ["cat", "dog"]) == "70 % dog,\n30 % cat"


def test_benchmark_writes_its_figures(run_here, tmp_path, monkeypatch) -> None:
    from apps import bench_pipeline
    from apps.bench import Figure

    figures = [Figure("reference", 200.0, 190.0, 210.0), Figure("other", 50.0, 40.0, 60.0)]
    monkeypatch.setattr(bench_pipeline, "bench_pipeline", lambda rounds, console: {"title": figures})
    process = run_here("bench", "pipeline", "--json", tmp_path / "figures.json", "--rounds", 2)
    assert process.returncode == 0, process.stderr
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["rounds"] == 2
    other = {"name": "other", "median": 50, "low": 40, "high": 60, "unit": "pictures/s"}
    assert written["figures"]["title"][1] == other
    unknown = run_here("bench", "pipelin")
    assert unknown.returncode == 2
    assert (
        "There is no benchmark 'pipelin'. Benchmarks: pipeline, callbacks, networks, building, train, step, serve, "
        "distributed, accelerator." in unknown.stderr
    )


def test_figure_is_the_median_of_measurements_taken_in_turn() -> None:
    from apps.bench import WARM_UP, Contestant, measure

    order = []

    def start(name):
        order.append(name)
        steps = iter(range(10**9))
        return lambda: next(steps)

    contestants = [Contestant(name, 8, lambda name=name: start(name), seconds=0.01) for name in ("a", "b")]
    figures = measure(contestants, rounds=3)
    assert order == ["a", "b"] * 3
    assert WARM_UP > 0
    for figure in figures:
        assert figure.low <= figure.median <= figure.high


def test_all_contestants_of_the_benchmark_can_make_a_step(tmp_path) -> None:
    from apps import bench_pipeline

    pictures = np.zeros((600, 32, 32, 3), "uint8")
    paths = bench_pipeline.photographs(tmp_path, 70)
    contestants = [
        *bench_pipeline.flip_crop_cutout(pictures),
        *bench_pipeline.streaming(paths),
        *bench_pipeline.training(pictures),
    ]
    for contestant in contestants:
        step = contestant.start()
        step()
        step()
