"""report.html: everything that must stand in it, from the run's own files, in one file that needs no network."""

import html.parser
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import make_colours
from run_examples import make_run
from sklearn.metrics import confusion_matrix

import pipelines
from apps.console import Console
from apps.finished_run import FinishedRun, Validation, read_run
from apps.report import curves
from apps.report.curves import describe_curves, epochs_of, panels_of
from apps.report.examples import Labelled, examples_of
from apps.report.heads import confusion_of, matrix, shown_classes
from apps.report.layers import found_symptoms, typical_update, with_kernels
from apps.report.report import write_report
from pipelines.competition import encoded_pictures

WITHOUT_END = {"meta", "link", "img", "br", "input", "path", "use", "rect", "image"}


class Page(html.parser.HTMLParser):
    """What a browser finds: words, ids, pictures with their alternatives, tags that were not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.pictures, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        found = dict(attributes)
        if tag not in WITHOUT_END:
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        if tag == "img":
            assert found["src"].startswith("data:image/")
            self.pictures.append(found["alt"])
        elif tag == "svg":
            assert found["role"] == "img"
            self.pictures.append(found["aria-label"])

    def handle_startendtag(self, tag, attributes) -> None:
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag) -> None:
        if tag not in WITHOUT_END:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words += data.split()


@pytest.fixture(scope="module")
def page(digits_run) -> Page:
    return Page((digits_run[0] / "runs/digits/report.html").read_text(encoding="utf-8"))


@pytest.fixture
def run(digits_run, tmp_path) -> Path:
    shutil.copytree(digits_run[0] / "runs/digits", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "run"


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 5)])


def test_report_is_one_small_file_that_needs_no_network(digits_run) -> None:
    path = digits_run[0] / "runs/digits/report.html"
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) == {
        "http://www.w3.org/2000/svg"
    }  # the icon's own, not fetched
    assert not re.search(r"<(script|iframe)|<link (?!rel=\"icon\" href=\"data:)|@import", text)
    assert path.stat().st_size < 5 * 2**20


def test_page_is_well_formed_and_every_picture_has_words(page) -> None:
    assert page.open == []
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    assert len(page.pictures) > 60
    assert min(len(words) for words in page.pictures) > 5


def test_report_says_what_was_trained_on_what_and_how_to_repeat_it(page, digits_run) -> None:
    words = " ".join(page.words)
    result = json.loads((digits_run[0] / "runs/digits/result.json").read_text())
    low, high = (f"{100 * result['expected'][end]:.1f} %" for end in ("low", "high"))
    for part in (
        f"1,437 labelled pictures, 360 to predict; resnet9 with {result['parameters']:,} parameters",
        f"{low} to {high} 95 % interval of the hidden score, from 144 held-out pictures",
        "calibrated by a temperature of",
        "kerascnn compete digits --epochs 6 --probabilities",
        "kerascnn compete digits --recipe runs/digits/recipe.json",
        "Nothing was left out.",
        "The audit found nothing",
        "What the augmentation makes of the pictures as they are",
        "Looked at 16 times while it trained",
        "pictures a second in training",
        "Their roughness is",
        "Nothing wrong in the curves",
    ):
        assert part in words, part


def test_report_draws_rate_momentum_and_loss_on_one_axis_of_epochs(page) -> None:
    (curves,) = [words for words in page.pictures if words.startswith("Loss, score, learning rate, momentum over 6")]
    assert "val_loss from" in curves
    (layers,) = [
        words for words in page.pictures if words.startswith("Distributions of outputs and gradients of prep_c")
    ]
    assert "head_0_label" in layers


def test_matrix_of_the_page_is_that_of_the_held_out_pictures(digits_run) -> None:
    table = pd.read_csv(digits_run[0] / "runs/digits/validation.csv", dtype=str)
    expected = confusion_matrix(table["label"], table["label_predicted"])
    text = (digits_run[0] / "runs/digits/report.html").read_text(encoding="utf-8")
    part = text[text.index('<table class="matrix">') :]
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", part[: part.index("</table>")], flags=re.DOTALL)
    found = [[int(cell or 0) for cell in re.findall(r"<td[^>]*>(\d*)</td>", row)] for row in rows]
    np.testing.assert_array_equal(found, expected)


def test_report_written_again_says_the_same(digits_run, run, run_here) -> None:
    before = Page((digits_run[0] / "runs/digits/report.html").read_text(encoding="utf-8"))
    (run / "report.html").unlink()
    process = run_here("report", run)
    assert process.returncode == 0, process.stderr
    assert f"wrote     {run / 'report.html'}" in process.stdout
    again = Page((run / "report.html").read_text(encoding="utf-8"))
    assert again.pictures == before.pictures
    place = {"digits", "run", "runs/digits", str(run)}
    changed = Counter(again.words) - Counter(before.words) + (Counter(before.words) - Counter(again.words))
    assert {word.removesuffix("/recipe.json") for word in changed} <= place


def test_report_without_its_data_says_so_and_shows_no_pictures(run, run_here) -> None:
    record = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(record | {"data": "gone.zip"}))
    process = run_here("report", run)
    assert process.returncode == 0
    assert "The report shows no pictures: There is no" in process.stderr
    assert "Right and sure" not in (run / "report.html").read_text(encoding="utf-8")


def test_report_of_a_run_of_an_older_version_says_what_it_lacks(run, run_here) -> None:
    result = json.loads((run / "result.json").read_text())
    del result["machine"], result["heads"]["label"]["reliability"]
    (run / "result.json").write_text(json.dumps(result))
    process = run_here("report", run)
    assert process.returncode == 2
    assert "was finished by an older version, and does not say: machine, reliability." in process.stderr


def test_heads_folds_and_snapshots_have_their_parts(tmp_path, tiny) -> None:
    """Two heads, one of them called as Keras calls validation; three trainings of five networks."""
    epochs = [{"epoch": number, "lr": 0.1, "momentum": 0.9, "seconds": 1.0} for number in (1, 2, 3)]
    for row, loss in zip(epochs, (2.0, 1.0, 0.6), strict=True):
        row |= {"loss": loss, "val_loss": loss, "val_kind_loss": loss, "Hair_loss": loss}
        for name in ("val_kind_accuracy", "val_val_kind_accuracy", "Hair_accuracy", "val_Hair_accuracy"):
            row[name] = 1 - loss / 4
    history = [{"fold": fold, "network": 1, **row} for fold in (1, 2, 3) for row in epochs]
    networks = [
        {"fold": fold, "network": 1, "seed": 0, "best_epoch": epoch, "weight": 0.5, "validation_accuracy": None}
        for fold, epoch in ((1, 1), (1, 3), (2, 1), (2, 3), (3, 3))
    ]
    names = {"val_kind": ["cat", "dog"], "Hair": ["long", "short"]}
    answers = {head: [(pair[0], pair[number % 2]) for number in range(12)] for head, pair in names.items()}
    bins = {"confidence": [0.8], "accuracy": [0.5], "count": [12]}
    head = {
        "expected": {"value": 0.5, "low": 0.3, "high": 0.7, "pictures": 12},
        "validation_accuracy": 0.5,
        "largest_class": 0.6,
        "validation_scores": {"accuracy": 0.5, "macro_f1": 0.4, "log_loss": 0.7},
        "temperature": 1.5,
        "log_loss": {"before": 0.8, "after": 0.7},
        "calibration_error": {"before": 0.3, "after": 0.1},
        "reliability": {"before": bins, "after": bins},
    }
    gain = {"expected": 0.5, "together": 0.5, "alone": 0.4, "worst_alone": 0.3, "best_alone": 0.5}
    result = {
        "heads": {"val_kind": head, "Hair": head},
        "networks": networks,
        "best_epochs": [row["best_epoch"] for row in networks],
        "ensemble": {"val_kind": gain, "Hair": gain},
        "data": {"labelled": 60, "hidden": 9, "columns": []},
        "machine": "2 cores",
        "saved_model": "saved_models/run/1",
        **{name: [] for name in ("alarms", "left_out", "audit")},
    }
    columns = {"targets": ["val_kind", "Hair"], "group": "owner id", "id_column": None}
    run = make_run(
        tmp_path / "my run", answers, names, history=history, result=result, record={"columns": columns},
        recipe={"snapshots": 2},
    )  # fmt: skip
    write_report(read_run(run), tiny, None, Console(quiet=True))
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    words = " ".join(page.words)
    assert "Head val_kind" in words and "Head Hair" in words
    assert "One colour a training." in words
    assert [text for text in ("fold 1, network 1", "fold 3, network 1") if text not in words] == []
    assert "The diagnosis is of the first of 3 trainings." in words
    options = "--target val_kind --target Hair --group 'owner id'"
    assert f"kerascnn compete pets {options} --recipe '{run}/recipe.json'" in words
    assert any("Hair_accuracy from" in text for text in page.pictures)


def test_report_of_an_unfinished_run_is_one_line(run, run_here) -> None:
    (run / "result.json").unlink()
    process = run_here("report", run)
    assert process.returncode == 2
    assert "is not finished: it has no result.json" in process.stderr
    assert process.stderr.count("\n") == 1


def test_run_without_held_out_pictures_or_logs_has_a_report(run, tiny) -> None:
    found = read_run(run)
    nothing = {
        head: row | {"expected": None, "validation_accuracy": None} for head, row in found.result["heads"].items()
    }
    shutil.rmtree(run / "logs")
    for rows in found.history.values():
        for row in rows:
            for name in [name for name in row if name.startswith("val_")]:
                del row[name]
    result = {**found.result, "expected": None, "heads": nothing}
    del result["hidden_score"]
    write_report(replace(found, validation=None, result=result), tiny, None, Console(quiet=True))
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    words = " ".join(page.words)
    assert "No score can be expected: nothing was held out." in words
    assert "the last one: nothing was held out to tell which was best" in words
    assert "The layers were not looked at" in words


def test_names_of_classes_and_files_are_written_as_they_are(run, tiny) -> None:
    found = read_run(run)
    found.classes["label"][3] = "<b>three</b>"
    found.result["audit"] = ["<4 pictures>"]
    write_report(found, tiny, None, Console(quiet=True))
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "&lt;b&gt;three&lt;/b&gt;" in text
    assert "<li>&lt;4 pictures&gt;</li>" in text


def test_large_matrix_shows_the_classes_most_mixed_up() -> None:
    confusion = 10 * np.eye(50, dtype=int)
    confusion[40, 41] = confusion[3, 49] = 5
    shown = shown_classes(confusion)
    assert len(shown) == 30
    assert {3, 40, 41, 49} <= set(shown)
    found = matrix(confusion, [f"class {number}" for number in range(50)])
    row = found["cells"][found["names"].index("class 40")]
    assert row[found["names"].index("class 41")] == (5, 5 / 15)


def test_pictures_without_a_label_are_not_in_the_matrix() -> None:
    found = confusion_of(np.array([0, 1, -1, 1]), np.array([0, 0, 0, 1]), 2)
    np.testing.assert_array_equal(found.toarray(), [[1, 0], [1, 1]])


def test_most_confident_mistakes_and_most_typical_pictures_come_first(tmp_path) -> None:
    competition = pipelines.open_dataset(str(make_colours(tmp_path)))
    labelled = Labelled(competition, encoded_pictures(competition.train))
    ids = [str(one) for one in competition.train["id"][:9]]
    names = competition.classes["label"]
    truth = np.array([names.index(label) for label in competition.labels["label"][:9]])
    answer, confidence = truth.copy(), np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.4, 0.95, 0.55, 0.65])
    answer[[0, 3]] = (truth[0] + 1) % 3
    run = Validation(np.array(ids), np.ones(9), {"label": truth}, {"label": answer}, {"label": confidence}, None)
    (row,) = examples_of("label", names, [names[truth[0]]], run, labelled)
    assert row["pictures"] == 3
    wrong = names[(truth[0] + 1) % 3]
    assert [caption for _, caption in row["mistakes"]] == [f"{wrong} 80.0 %", f"{wrong} 50.0 %"]
    assert [caption for _, caption in row["typical"]] == [f"{names[truth[0]]} 95.0 %"]
    assert f'alt="{names[truth[0]]}, answered {wrong} 80.0 %: {ids[3]}"' in row["mistakes"][0][0]


def test_a_damaged_picture_is_left_out_and_told(digits_run, run, tiny, capsys) -> None:
    found = read_run(run)
    competition = pipelines.open_dataset("digits")
    encoded = encoded_pictures(competition.train)
    place = list(competition.train["id"]).index(most_typical(found, "3"))
    encoded.lengths[place] = encoded.lengths[place] // 2 if encoded.lengths[place] > 0 else 20
    write_report(found, tiny, Labelled(competition, encoded), Console(quiet=True))
    assert "Missing in the report, since they cannot be read: 1, such as" in capsys.readouterr().err
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert len([words for words in page.pictures if words.startswith("3, answered 3 ")]) == 4


def most_typical(run: FinishedRun, name: str) -> str:
    """The picture that is most surely right."""
    number, held_out = run.classes["label"].index(name), run.validation
    right = (held_out.truth["label"] == number) & (held_out.answer["label"] == number)
    return str(held_out.ids[np.argmax(np.where(right, held_out.confidence["label"], -1))])


def test_a_picture_that_is_gone_is_a_warning_and_no_end(run, tiny, tmp_path, capsys) -> None:
    root = make_colours(tmp_path)
    competition = pipelines.open_dataset(str(root))
    labelled = Labelled(competition, encoded_pictures(competition.train))
    shutil.rmtree(root / "train")
    write_report(read_run(run), tiny, labelled, Console(quiet=True))
    assert "Missing in the report" in capsys.readouterr().err
    assert (run / "report.html").is_file()


def test_panels_have_what_the_history_knows() -> None:
    row = {"epoch": 1.0, "lr": 0.1, "momentum": 0.9, "loss": 2.0, "a_loss": 1.0, "val_loss": 1.5, "seconds": 3.0}
    row |= {"a_accuracy": 0.5, "val_a_accuracy": 0.6, "raw_val_a_accuracy": 0.1}
    assert panels_of([[row]]) == {
        "loss": ["loss", "val_loss"],
        "score": ["a_accuracy", "val_a_accuracy"],
        "learning rate": ["lr"],
        "momentum": ["momentum"],
    }
    assert describe_curves([row, row | {"lr": 0.0}], ["loss"]).startswith(
        "Loss over 2 epochs: lr from 0.1 to 0, momentum"
    )


def test_training_is_dashed_whatever_a_head_is_called() -> None:
    lines: dict[str, Any] = {}
    axes = SimpleNamespace(plot=lambda x, y, style, label, color, **_: lines.update({label: (style, color)}))
    names = ["val_kind_accuracy", "val_val_kind_accuracy", "Hair_accuracy", "val_Hair_accuracy"]
    curves._draw_lines(axes, [{"epoch": 1.0}], curves._colours(names))
    assert [lines[name][0] for name in names] == ["--", "-", "--", "-"]
    assert lines[names[0]][1] == lines[names[1]][1] != lines[names[2]][1] == lines[names[3]][1]


def test_windows_lie_in_the_middle_of_their_steps() -> None:
    ends = {1: 10, 2: 20}
    rows = epochs_of([{"step": 4, "batches": 4, "loss": 1.0}, {"step": 12, "batches": 2, "loss": 0.5}], ends)
    assert [row["epoch"] for row in rows] == [0.2, 1.1]


def test_windows_of_epochs_of_other_lengths_lie_in_theirs() -> None:
    """As of recipes that train later epochs on the hardest pictures only; and of a log that begins with epoch 3."""
    windows = [{"step": 12, "batches": 2, "loss": 1.0}, {"step": 15, "batches": 2, "loss": 0.5}]
    assert [row["epoch"] for row in epochs_of(windows, {1: 10, 2: 12, 3: 16})] == [1.5, 2.5]
    assert [row["epoch"] for row in epochs_of(windows, {3: 12, 4: 16})] == [3.5]


def record(step: int, rate: float, update: float, dead: float = 0.0) -> dict:
    """A sample of a network with one convolution and one norm."""
    activation = {"function": "relu", "mean": 0.1, "std": 1.0, "zeros": 0.5, "dead": dead, "saturated": None}
    gradient = {"norm": 0.1, "mean": 0.0, "std": 0.1, "percentiles": [-1, -0.5, 0, 0.5, 1]}
    kernel = {"shape": [3, 3, 3, 8], "norm": 1.0, "update_ratio": update, "gradient": gradient}
    scale = {"shape": [8], "norm": 1.0, "update_ratio": None, "gradient": gradient}
    layers = {
        "conv": {"head": False, "activation": activation, "weights": {"kernel": kernel}},
        "norm": {"head": False, "activation": {**activation, "dead": 0.0}, "weights": {"gamma": scale}},
    }
    return {"step": step, "epoch": 0, "examples": 64, "learning_rate": rate, "layers": layers}


def test_layers_with_kernels_are_shown_and_what_both_last_samples_show_is_said() -> None:
    healthy, sick = record(0, 0.1, 1e-3), record(10, 0.1, 1e-3, dead=0.75)
    assert with_kernels([healthy]) == ["conv"]
    assert found_symptoms([healthy, sick]) == []
    (said,) = found_symptoms([healthy, sick, sick])
    assert said.startswith("conv: 75 % of its units are dead")


def test_typical_update_is_that_of_high_rates() -> None:
    records = [record(0, 0.01, 5e-5), record(1, 0.1, 1e-3), record(2, 0.08, 3e-3), record(3, 0.001, 1e-6)]
    assert typical_update(records) == pytest.approx(2e-3)
