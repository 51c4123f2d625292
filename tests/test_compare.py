"""`kerascnn compare`: what differs, the figures side by side, and whether a difference in accuracy is chance."""

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_examples import make_run

from apps import compete
from apps.compare.curves import draw_curves
from apps.compare.differences import cautions, differences
from apps.compare.significance import compare_pair, compare_pairs, holm, in_words, mcnemar
from apps.compare.tables import cost_table, pair_table, score_table
from apps.console import Console
from apps.finished_run import read_run
from apps.run_folder import Order, read_record

Run = Callable[..., Any]


def pets(right: Sequence[bool]) -> dict[str, list[tuple[str, str]]]:
    """Answers for pictures that are cats and dogs in turn."""
    names = ("cat", "dog")
    return {"label": [(names[place % 2], names[(place + (not one)) % 2]) for place, one in enumerate(right)]}


# 1 picture on which only the first is right, 9 on which only the second is, 20 on which both are.
FIRST, SECOND = [True] + [False] * 9 + [True] * 20, [False] + [True] * 9 + [True] * 20


# --- the test ---------------------------------------------------------------------------------------------------------


def test_p_value_is_twice_the_tail_of_fair_coins() -> None:
    assert mcnemar(1, 9) == mcnemar(9, 1) == 0.021484375 == 2 * (1 + 10) / 2**10
    assert mcnemar(5, 5) == mcnemar(0, 0) == 1.0
    for first in range(8):
        for second in range(8):
            count, few = first + second, min(first, second)
            tail = sum(math.comb(count, number) for number in range(few + 1)) / 2**count
            assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_false_alarms_are_as_rare_as_the_level_promises() -> None:
    alarms = [math.comb(40, first) for first in range(41) if mcnemar(first, 40 - first) < 0.05]
    assert 0.03 < sum(alarms) / 2**40 < 0.05


def test_correction_is_that_of_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    p_values = np.random.default_rng(1).uniform(0, 0.2, 6)
    order = np.sort(p_values)
    expected = [max(min(1.0, (6 - rank) * order[rank]) for rank in range(6) if order[rank] <= p) for p in p_values]
    assert holm(list(p_values)) == pytest.approx(expected)


def test_pictures_are_joined_by_id_and_classes_by_name(tmp_path) -> None:
    first = make_run(tmp_path / "a", pets(FIRST))
    backwards = {"label": pets(SECOND)["label"][::-1]}
    ids = [str(place) for place in range(30)][::-1]
    second = make_run(tmp_path / "b", backwards, {"label": ("dog", "cat")}, ids)
    pair = compare_pair([read_run(first), read_run(second)], "label", 0, 1)
    assert (pair.pictures, pair.right, pair.only_first, pair.only_second) == (30, (21, 29), 1, 9)
    assert pair.p == 0.021484375


def test_pictures_without_a_label_or_with_another_one_do_not_count(tmp_path) -> None:
    one, other = pets(FIRST), pets(SECOND)
    one["label"][10] = ("", "cat")  # both were right
    other["label"][1] = ("cat", "cat")  # a dog before, on which only the second was right
    ids = [*map(str, range(29)), "only b's"]
    runs = [read_run(make_run(tmp_path / "a", one)), read_run(make_run(tmp_path / "b", other, ids=ids))]
    pair = compare_pair(runs, "label", 0, 1)
    assert (pair.pictures, pair.relabelled, pair.only_first, pair.only_second) == (27, 1, 1, 8)
    assert "Of 27 pictures that both held out" in (said := in_words(compare_pairs(runs)[0], ["a", "b"]))
    assert said.endswith("1 more have another label in each, and do not count.")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"answers": None}, "nothing was held out"),
        (
            {"answers": {"label": [("cat", "ox")] * 30}, "classes": {"label": ("cat", "ox")}},
            "their classes are not the",
        ),
        (
            {"answers": pets(SECOND), "ids": [f"b{place}" for place in range(30)]},
            "no labelled pictures were held out by",
        ),
        ({"answers": pets(SECOND[:5])}, "5 labelled pictures were held out by both, too few"),
        ({"answers": pets(SECOND), "ids": [str(29 - place) for place in range(30)]}, "they are not the same pictures"),
    ],
)
def test_without_common_pictures_there_is_no_test(tmp_path, other: dict[str, Any], why: str) -> None:
    runs = [read_run(make_run(tmp_path / "a", pets(FIRST))), read_run(make_run(tmp_path / "b", **other))]
    (pair,) = compare_pairs(runs)
    assert pair.p is pair.corrected is pair.better is None
    assert why in in_words(pair, ["a", "b"])


def test_six_pictures_are_the_fewest_that_can_tell_anything(tmp_path) -> None:
    runs = [read_run(make_run(tmp_path / str(right), pets([right] * 6))) for right in (True, False)]
    (pair,) = compare_pairs(runs)
    assert pair.p == 2 / 2**6 < 0.05 < mcnemar(5, 0)
    assert pair.better == 0


def test_three_runs_make_three_pairs_with_corrected_p_values(tmp_path) -> None:
    third = [True] * 30
    runs = [
        read_run(make_run(tmp_path / name, pets(right)))
        for name, right in zip("abc", (FIRST, SECOND, third), strict=True)
    ]
    pairs = compare_pairs(runs)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert [pair.p for pair in pairs] == [0.021484375, 2 / 2**9, 1.0]
    assert [pair.corrected for pair in pairs] == pytest.approx([2 * 0.021484375, 3 * 2 / 2**9, 1.0])
    assert in_words(pairs[0], "abc").endswith(
        "a is right on 1 where b is wrong, b on 9 where a is wrong: "
        "p = 0.021, corrected for 3 pairs p = 0.043, b is better."
    )
    assert "no difference is shown" in in_words(pairs[2], "abc")
    assert pair_table(pairs, "abc").rows[1][-2:] == ["0.0039", "0.012"]


# --- what differs -----------------------------------------------------------------------------------------------------


def test_only_what_differs_is_listed(tmp_path) -> None:
    first = make_run(tmp_path / "a", pets(FIRST), result={"commit": None})
    second = make_run(
        tmp_path / "b",
        pets(SECOND),
        recipe={"lr": 0.1000001, "average": "ema"},
        record={"versions": {"kerascnn": "0.1.0", "tensorflow": "2.22.0"}},
        validation_split="5, 123456789abc",
    )
    assert differences([read_run(first), read_run(second)]) == [
        ("validation split", ["1 (checksum dddddd)", "5 (checksum 123456)"]),
        ("lr", ["0.1", "0.1000001"]),
        ("average", ["none", "ema"]),
        ("tensorflow", ["2.21.0", "2.22.0"]),
        ("commit", ["not known", "0123456789ab"]),
    ]


def test_fields_that_came_later_are_not_known_of_older_runs(tmp_path) -> None:
    first, second = make_run(tmp_path / "a", pets(FIRST)), make_run(tmp_path / "b", pets(SECOND))
    record = json.loads((second / "recipe.json").read_text())
    del record["recipe"]["hardest"]
    (second / "recipe.json").write_text(json.dumps(record))
    assert differences([read_run(first), read_run(second)]) == [("hardest", ["1.0", "not known"])]


def test_equal_runs_need_one_caution_only(tmp_path) -> None:
    runs = [read_run(make_run(tmp_path / name, pets(FIRST))) for name in "ab"]
    assert differences(runs) == []
    (sentence,) = cautions(runs, "ab")
    assert sentence.startswith("Every run kept the epoch that was best")


@pytest.mark.parametrize(
    ("different", "words"),
    [
        ({"labelled_pictures": "61, 1"}, "The labelled pictures are not the same"),
        ({"validation_split": "1, 1"}, "The runs held out different pictures"),
        ({"hidden_ids": "9, 1"}, "their hidden scores cannot be compared"),
        ({"recipe": {"l2": 1e-4}}, "The validation losses are not sums of the same"),
        ({"recipe": {"score": "log_loss"}}, "good by different scores"),
        ({"record": {"group_column": "sender"}}, "The pictures come in groups"),
        (
            {"record": {"columns": {"targets": None, "group": "sender", "id_column": None}}},
            "The pictures come in groups",
        ),
        ({"recipe": {"snapshots": 2}}, "a kept the epoch"),
    ],
)
def test_what_is_not_like_with_like_is_said(tmp_path, different: dict[str, Any], words: str) -> None:
    first = read_run(make_run(tmp_path / "a", pets(FIRST)))
    assert words not in " ".join(cautions([first, first], "ab"))
    assert words in " ".join(cautions([first, read_run(make_run(tmp_path / "b", pets(SECOND), **different))], "ab"))


def test_record_names_the_groups_that_were_worked_out(colours, tmp_path, monkeypatch) -> None:
    table = pd.read_csv(colours / "train.csv", dtype=str)
    table.assign(person=[f"p{place // 4}" for place in range(len(table))]).to_csv(colours / "train.csv", index=False)
    monkeypatch.setattr(compete, "carry_out", lambda *_: None)
    order = Order(str(colours), {"targets": ["label"], "group": None, "id_column": None}, {}, str(tmp_path), False)
    compete.compete(order, out=tmp_path / "run", console=Console(quiet=True))
    record = read_record(tmp_path / "run")
    assert (record["group_column"], record["columns"]["group"]) == ("person", None)


# --- tables and curves ------------------------------------------------------------------------------------------------


def test_tables_have_a_row_a_run(tmp_path) -> None:
    hidden = make_run(tmp_path / "a", pets(FIRST))
    result = json.loads((hidden / "result.json").read_text())
    result["heads"]["label"]["hidden_scores"] = {"accuracy": 0.75}
    (hidden / "result.json").write_text(json.dumps(result))
    runs = [read_run(hidden), read_run(make_run(tmp_path / "b", None))]
    table = score_table(runs, "ab")
    assert table.headings[1] == "expected accuracy"
    assert table.rows == [
        ("a", "70.0 %", "60.0 % to 80.0 %", "70.0 %", "0.250", "75.0 %"),
        ("b", "–", "–", "–", "–", "–"),
    ]
    assert cost_table(runs, "ab").rows[0] == ("a", "resnet9", "1,648,352", "1", "2", "2", "12.3", "988")


def several(tmp_path: Path) -> Path:
    """A run of two heads, one with a name that is none for Keras, in two folds of different length."""
    rows = [
        {"fold": fold, "network": 1, "epoch": epoch, "lr": 0.1, "loss": 1 / epoch, "val_loss": 2 / epoch}
        | {"val_label_accuracy": 0.5, "val_hair_colour_1_accuracy": epoch / 10}
        for fold, epochs in ((1, 3), (2, 2))
        for epoch in range(1, epochs + 1)
    ]
    classes = {"label": ("cat", "dog"), "hair colour": ("black", "white")}
    answers = pets(FIRST) | {"hair colour": [("black", "white"), ("white", "white")] * 15}
    result = {"best_epochs": [3, 1], "hidden_score": 0.5}
    return make_run(tmp_path / "several", answers, classes, history=rows, result=result)


def test_heads_have_rows_tests_and_curves_of_their_own(tmp_path) -> None:
    runs = [read_run(make_run(tmp_path / "a", pets(SECOND))), read_run(several(tmp_path))]
    table = score_table(runs, ["a", "several"])
    assert [row[:2] for row in table.rows] == [
        ("a", "label"),
        ("several", "mean of 2"),
        ("several", "label"),
        ("several", "hair colour"),
    ]
    assert table.rows[1][-1] == "50.0 %"
    assert cost_table(runs, ["a", "several"]).rows[1][3:6] == ("2", "2 to 3", "1 to 3")
    assert [pair.head for pair in compare_pairs(runs)] == ["label"]
    curves = draw_curves(runs, ["a", "several"])
    assert [curve.title for curve in curves] == [
        "loss",
        "accuracy of label",
        "accuracy of hair colour",
        "learning rate",
    ]
    said = re.findall('aria-label="(.*?)"', str(curves[2].drawing))
    assert said == [
        "Accuracy of hair colour by epoch, in validation where it is measured: "
        "a unknown; several from 0.1 to 0.3 after 3 epochs."
    ]


def test_every_training_has_a_line_of_the_colour_of_its_run(tmp_path) -> None:
    runs = [read_run(make_run(tmp_path / "a", pets(SECOND))), read_run(several(tmp_path))]
    drawing = str(draw_curves(runs, ["a", "several"])[0].drawing)
    lines = re.findall(
        r'd="M[^"]*?" clip-path[^>]*?style="fill: none; stroke(?:-dasharray)?:[^"]*#(3d7fd6|d9772b)', drawing
    )
    assert [lines.count(colour) for colour in ("3d7fd6", "d9772b")] == [2, 4]  # training and validation of each


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_says_who_is_better_and_writes_a_page(run_here: Run, tmp_path) -> None:
    make_run(tmp_path / "runs/<b>one", pets(FIRST))
    make_run(tmp_path / "runs/two", pets(SECOND), recipe={"epochs": 3})
    answer = run_here("compare", "runs/<b>one", "runs/two")
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"^epochs +2 +3$", answer.stdout, re.MULTILINE)
    said = "<b>one is right on 1 where two is wrong, two on 9 where <b>one is wrong: p = 0.021, two is better."
    assert said in " ".join(answer.stdout.split())
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert said.replace("<b>", "&lt;b&gt;") in page
    assert "<b>" not in page
    assert page.count("<svg") == page.count('role="img" aria-label="') == 3
    assert re.findall(r'(?:src|url\()="?(?!data:|#)[^"]{5}', page) == []
    assert run_here("compare", "runs/<b>one", "runs/two").stderr == (
        "kerascnn: error: compare.html exists. Choose another name by `--out`, or say `--overwrite`.\n"
    )
    assert run_here("compare", "runs/<b>one", "runs/two", "--overwrite", "--quiet").stdout == ""


def test_runs_of_one_name_are_told_apart_by_their_paths(run_here: Run, tmp_path) -> None:
    for folder in ("x/pets", "y/pets"):
        make_run(tmp_path / folder, pets(FIRST))
    answer = run_here("compare", "x/pets", "y/pets", "--out", "page.html")
    assert "Data, recipe and versions are the same: what differs is left to chance." in answer.stdout
    assert "x/pets and y/pets are right on the same" in answer.stdout
    assert (tmp_path / "page.html").is_file()


def test_what_cannot_be_compared_is_one_line(run_here: Run, tmp_path) -> None:
    make_run(tmp_path / "a", pets(FIRST))
    make_run(tmp_path / "unfinished", pets(FIRST))
    (tmp_path / "unfinished/result.json").unlink()
    for arguments, words in (
        (["a"], "`compare` needs two runs at least. Received: a."),
        (["a", "./a/"], "a and a are the same run. Name each run once."),
        (["a", "unfinished"], "unfinished is not finished: it has no result.json."),
        (["a", "b"], "b is no folder of a run: it has no recipe.json."),
        (list("abcdefghi"), "`compare` takes 8 runs at most. Received: 9."),
    ):
        answer = run_here("compare", *arguments)
        assert answer.returncode == 2
        assert words in answer.stderr
        assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "compare.html").exists()


def test_finished_run_is_compared_with_a_worse_one(run_here: Run, digits_run, tmp_path) -> None:
    for name in ("good", "bad"):
        shutil.copytree(
            digits_run[0] / "runs/digits", tmp_path / name, ignore=shutil.ignore_patterns("checkpoints", "model.keras")
        )
    path = tmp_path / "bad/validation.csv"
    table = pd.read_csv(path, dtype=str)
    right = table.index[table["label"] == table["label_predicted"]][:8]
    table.loc[right, "label_predicted"] = [str((int(label) + 1) % 10) for label in table.loc[right, "label"]]
    table.to_csv(path, index=False)
    answer = run_here("compare", "good", "bad")
    assert answer.returncode == 0, answer.stderr
    assert "Of 144 pictures that both held out, good is right on 8 where bad is wrong, bad on 0" in answer.stdout
    assert "p = 0.0078, good is better." in " ".join(answer.stdout.split())
