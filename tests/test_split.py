"""Validation splits: stratified, grouped, disjoint, and safe for rare classes."""

import numpy as np
import pytest

from pipelines.split import split, split_by_file

LABELS = {"label": np.array([0] * 60 + [1] * 30 + [2] * 10)}


def test_fraction_holds_out_every_class_in_proportion() -> None:
    ((train, held_out),) = split(LABELS, 0.2, seed=1)
    assert np.bincount(LABELS["label"][held_out]).tolist() == [12, 6, 2]
    assert sorted([*train, *held_out]) == list(range(100))


def test_folds_hold_out_every_picture_once() -> None:
    folds = split(LABELS, 5, seed=1)
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(100))
    assert all(np.bincount(LABELS["label"][held_out]).tolist() == [12, 6, 2] for _, held_out in folds)
    assert all(not set(train) & set(held_out) for train, held_out in folds)


def test_no_group_is_on_both_sides() -> None:
    groups = np.repeat(np.arange(20), 5)
    for val in (0.25, 4):
        for train, held_out in split(LABELS, val, groups=groups):
            assert len(held_out)
            assert not set(groups[train]) & set(groups[held_out])


def test_one_large_group_does_not_decide_the_validation() -> None:
    """As in real life: one sender has 400 of 1,000 pictures, two have 90. Held out are about 100 of many others."""
    groups = np.concatenate([np.zeros(400, int), np.repeat([1, 2], 90), 3 + np.arange(420) // 10])
    labels = {"label": np.random.default_rng(0).integers(0, 3, 1000)}
    for seed in range(5):
        ((train, held_out),) = split(labels, 0.1, groups=groups, seed=seed)
        assert 90 <= len(held_out) <= 100
        assert np.bincount(groups[held_out]).max() <= 34
        share = np.bincount(labels["label"][held_out]) / len(held_out)
        np.testing.assert_allclose(share, np.bincount(labels["label"]) / 1000, atol=0.06)
        assert not set(groups[train]) & set(groups[held_out])


def test_groups_that_alone_have_a_label_stay_in_training() -> None:
    """Each of the first 10 of 40 groups has one picture of a class that no other group has."""
    for seed in range(10):
        labels = np.random.default_rng(seed).integers(0, 2, 400)
        labels[:100:10] = 2 + np.arange(10)
        ((train, _),) = split({"label": labels}, 0.3, groups=np.arange(400) // 10, seed=seed)
        assert set(labels[train]) == set(range(12))


def test_grouped_fraction_is_the_one_asked_for() -> None:
    groups = np.arange(1000) // 5
    for val in (0.1, 0.25, 0.4, 0.45):
        ((_, held_out),) = split({"label": np.arange(1000) % 2}, val, groups=groups)
        assert len(held_out) / 1000 == pytest.approx(val, abs=0.01)


def test_few_groups_leave_one_to_train_on() -> None:
    ((train, held_out),) = split(LABELS, 0.5, groups=np.repeat([0, 1], [95, 5]))
    assert (len(train), len(held_out)) in ((95, 5), (5, 95))


def test_nothing_is_held_out_for_zero() -> None:
    ((train, held_out),) = split(LABELS, 0)
    assert (len(train), len(held_out)) == (100, 0)


@pytest.mark.parametrize("val", [0.1, 0.5, 3])
def test_label_that_occurs_once_stays_in_training(val) -> None:
    labels = {"label": np.array([0] * 20 + [1] * 20 + [2])}
    for train, _ in split(labels, val):
        assert 40 in train


def test_heads_are_stratified_together() -> None:
    labels = {"label": np.tile([0, 1], 50), "kids": np.repeat([0, 1], 50)}
    ((_, held_out),) = split(labels, 0.2)
    combinations = 2 * labels["label"][held_out] + labels["kids"][held_out]
    assert np.bincount(combinations).tolist() == [5, 5, 5, 5]


def test_more_classes_than_held_out_pictures_is_no_error() -> None:
    for seed in range(20):
        labels = np.repeat(np.arange(40), 2)
        ((train, held_out),) = split({"label": labels}, 0.1, seed=seed)
        assert len(train) + len(held_out) == 80
        assert len(held_out) >= 6
        assert set(labels[train]) == set(range(40))  # no class is held out as a whole


def test_same_seed_gives_the_same_split() -> None:
    assert all(
        np.array_equal(a, b) for a, b in zip(split(LABELS, 0.2, seed=4)[0], split(LABELS, 0.2, seed=4)[0], strict=True)
    )
    assert not np.array_equal(split(LABELS, 0.2, seed=4)[0][1], split(LABELS, 0.2, seed=5)[0][1])


@pytest.mark.parametrize(
    ("labels", "val", "groups", "message"),
    [
        (LABELS["label"], 0.7, None, "fraction up to 0.5"),
        (LABELS["label"], 1, None, "fraction up to 0.5"),
        (LABELS["label"], 2.5, None, "fraction up to 0.5"),
        (np.array([0, 1, 2]), 0.3, None, "too few to hold out"),
        (np.array([0, 0, 1, 1]), 3, None, "no class has that many"),
        (LABELS["label"], 5, np.arange(100) % 3, "3 groups cannot be divided into 5"),
    ],
)
def test_impossible_splits_are_refused(labels, val, groups, message) -> None:
    with pytest.raises(ValueError, match=message):
        split({"label": labels}, val, groups=groups)


def listed(tmp_path, text: str):
    path = tmp_path / "held out.csv"
    path.write_text(text)
    return path


IDS = np.array([f"{number:02d}" for number in range(6)])


def test_file_says_what_is_held_out(tmp_path) -> None:
    ((train, held_out),) = split_by_file(listed(tmp_path, "image\n04\n01\n"), IDS, "image")
    assert (train.tolist(), held_out.tolist()) == ([0, 2, 3, 5], [1, 4])


def test_file_with_folds_holds_out_each_in_turn(tmp_path) -> None:
    pairs = split_by_file(listed(tmp_path, "fold,image\n2,00\n1,03\n2,05\n"), IDS, "image")
    assert [held_out.tolist() for _, held_out in pairs] == [[3], [0, 5]]
    assert pairs[1][0].tolist() == [1, 2, 3, 4]  # 03 is trained on while the other fold is held out


def test_folds_of_a_file_come_in_the_order_of_their_numbers_and_no_fold_is_training(tmp_path) -> None:
    pairs = split_by_file(listed(tmp_path, "image,fold\n00,10\n01,9\n02,\n"), IDS, "image")
    assert [held_out.tolist() for _, held_out in pairs] == [[1], [0]]


def test_file_may_name_pictures_that_cannot_be_read(tmp_path) -> None:
    ((train, held_out),) = split_by_file(listed(tmp_path, "image\n04\nbroken\n"), IDS, "image", {"broken"})
    assert (train.tolist(), held_out.tolist()) == ([0, 1, 2, 3, 5], [4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\n04\nx\n", "names 1 pictures that are not among the labelled ones, such as x; ids look like 00"),
        ("image\n04\n04\n", "names '04' more than once"),
        ("image\n" + "\n".join(IDS), "holds out every picture; some must be trained on"),
        ("image\n", "holds out no picture"),
    ],
)
def test_file_that_does_not_fit_is_refused(tmp_path, text, message) -> None:
    with pytest.raises(ValueError, match=message):
        split_by_file(listed(tmp_path, text), IDS, "image")
