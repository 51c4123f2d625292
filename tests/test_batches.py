"""Batches: a pure function of (seed, epoch, index) in training, every picture once in evaluation."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines import augment, make_eval, make_train
from pipelines.batches import MISSING, smooth


def numbered(count: int) -> np.ndarray:
    """Pictures whose pixels all carry their index."""
    return np.tile(np.arange(count, dtype="uint8")[:, None, None, None], (1, 4, 4, 3))


def training(seed: int = 0, first_epoch: int = 0, batch_size: int = 4, operations=()) -> tf.data.Dataset:
    labels = {"label": np.arange(10) % 3}
    return make_train(
        numbered(10),
        labels,
        {"label": 3},
        batch_size=batch_size,
        seed=seed,
        first_epoch=first_epoch,
        augmentation=operations,
    )


def indices(data: tf.data.Dataset, batches: int) -> list[list[int]]:
    return [x[:, 0, 0, 0].numpy().astype(int).tolist() for x, _, _ in data.take(batches)]


def test_an_epoch_shows_no_picture_twice_and_the_next_has_another_order() -> None:
    batches = indices(training(), 4)  # two batches of 4 of 10 pictures an epoch
    first, second = batches[0] + batches[1], batches[2] + batches[3]
    assert len(set(first)) == len(set(second)) == 8
    assert first != second


def test_same_seed_gives_the_same_batches_and_another_seed_others() -> None:
    assert indices(training(seed=5), 6) == indices(training(seed=5), 6)
    assert indices(training(seed=5), 6) != indices(training(seed=6), 6)


def test_starting_at_an_epoch_equals_skipping_to_it() -> None:
    assert indices(training(first_epoch=2), 2) == indices(training(), 6)[4:]


def test_augmentation_of_a_picture_does_not_depend_on_its_batch() -> None:
    operations = [augment.random_crop(3), augment.horizontal_flip(), augment.cutout(2)]
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype("uint8")
    seen = []
    for batch_size in (3, 4, 12):
        labels = {"index": np.arange(12)}
        data = make_train(pictures, labels, {"index": 12}, batch_size=batch_size, augmentation=operations, seed=2)
        by_index = {}
        for x, y, _ in data.take(12 // batch_size):
            by_index |= dict(zip(y["index"].numpy().argmax(axis=1).tolist(), x.numpy(), strict=True))
        seen.append(np.stack([by_index[index] for index in range(12)]))
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


def test_augmentation_differs_between_epochs() -> None:
    data = training(batch_size=10, operations=[augment.horizontal_flip(), augment.cutout(2)])
    first, second = [x.numpy() for x, _, _ in data.take(2)]
    holes = [np.sort((epoch == 0).reshape(10, -1).sum(axis=1)).tolist() for epoch in (first, second)]
    assert holes[0] != holes[1] or not np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


def test_label_of_a_picture_stays_with_it() -> None:
    for x, y, _ in training().take(6):
        np.testing.assert_array_equal(x[:, 0, 0, 0].numpy() % 3, y["label"].numpy().argmax(axis=1))


def test_evaluation_yields_every_picture_once_in_order() -> None:
    labels = {"label": np.arange(10) % 3}
    data = list(make_eval(numbered(10), labels, {"label": 3}, batch_size=4))
    assert [len(x) for x, _, _ in data] == [4, 4, 2]
    assert np.concatenate([x[:, 0, 0, 0] for x, _, _ in data]).tolist() == list(range(10))
    assert (
        np.concatenate([y["label"].numpy().argmax(axis=1) for _, y, _ in data]).tolist() == (np.arange(10) % 3).tolist()
    )


def test_missing_label_has_no_weight_in_its_head_alone() -> None:
    labels = {"label": np.array([0, MISSING, 2]), "kids": np.array([1, 0, MISSING])}
    ((_, y, weight),) = make_eval(numbered(3), labels, {"label": 3, "kids": 2})
    assert weight["label"].numpy().tolist() == [1, 0, 1]
    assert weight["kids"].numpy().tolist() == [1, 1, 0]
    assert y["label"].numpy()[1].tolist() == [0, 0, 0]


def test_missing_label_has_no_weight_in_training() -> None:
    labels = {"label": np.array([0, MISSING, 2, 1])}
    data = make_train(numbered(4), labels, {"label": 3}, batch_size=4)
    for x, _, weight in data.take(2):
        np.testing.assert_array_equal(weight["label"], (x[:, 0, 0, 0] != 1).numpy())


def test_training_sees_the_chosen_pictures_only() -> None:
    labels = {"label": np.arange(10) % 3}
    data = make_train(numbered(10), labels, {"label": 3}, batch_size=3, index=np.array([2, 5, 9]))
    assert [sorted(batch) for batch in indices(data, 3)] == [[2, 5, 9]] * 3


def test_smoothing_gives_the_rest_to_the_other_classes_only() -> None:
    # The course's form: 1 - e for the true class, e / (K - 1) for each other.
    np.testing.assert_allclose(smooth(tf.constant([2]), 4, 0.3).numpy(), [[0.1, 0.1, 0.7, 0.1]], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [0, 11])
def test_impossible_batch_size_is_refused(batch_size) -> None:
    with pytest.raises(ValueError, match="between 1 and the 10 pictures"):
        training(batch_size=batch_size)


def test_number_of_labels_must_be_the_number_of_pictures() -> None:
    with pytest.raises(ValueError, match="'label' has 9 labels for 10 pictures"):
        make_eval(numbered(10), {"label": np.zeros(9, int)}, {"label": 2})
