"""Smoothed labels and weights, by numbers worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.labels import MISSING, check_labels, class_weights, example_weights, smooth


def test_smoothing_gives_the_rest_to_the_other_classes_only() -> None:
    # The course's form: 1 - e for the true class, e / (K - 1) for each other.
    rows = smooth(tf.constant([2, 0]), 4, 0.3).numpy()
    np.testing.assert_allclose(rows, [[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]], rtol=1e-6)
    assert rows.dtype == np.float32


def test_smoothing_over_all_classes_gives_the_true_one_its_part_too() -> None:
    rows = smooth(tf.constant([2, 0]), 4, 0.2, "all").numpy()
    np.testing.assert_allclose(rows, [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]], rtol=1e-6)


def test_smoothing_over_all_classes_is_that_of_keras() -> None:
    labels = np.array([0, 4, 2])
    predicted = np.random.default_rng(0).dirichlet(np.ones(5), 3).astype("float32")
    theirs = keras.losses.CategoricalCrossentropy(label_smoothing=0.15)(np.eye(5)[labels], predicted)
    ours = keras.losses.CategoricalCrossentropy()(smooth(tf.constant(labels), 5, 0.15, "all"), predicted)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("smoothing", ["others", "all"])
def test_smoothed_rows_sum_to_one_but_those_of_missing_labels_are_zero(smoothing) -> None:
    rows = smooth(tf.constant([1, MISSING, 0]), 3, 0.1, smoothing).numpy()
    np.testing.assert_allclose(rows.sum(axis=1), [1, 0, 1], rtol=1e-6)
    assert not rows[1].any()


@pytest.mark.parametrize("smoothing", ["others", "all"])
def test_without_smoothing_a_row_is_one_class(smoothing) -> None:
    np.testing.assert_array_equal(smooth(tf.constant([1, 0]), 3, 0, smoothing), [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("smoothing", ["others", "all"])
def test_a_single_class_is_certain(smoothing) -> None:
    np.testing.assert_array_equal(smooth(tf.constant([0, 0]), 1, 0.2, smoothing), [[1], [1]])


def test_unknown_smoothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`smoothing` must be one of others, all\. Received: 'keras'"):
        smooth(tf.constant([0]), 2, 0.1, "keras")


def test_class_weights_are_the_inverse_frequency() -> None:
    # N / (K n): 6 labels of 2 classes that occur; 3 in class 0 would be 1.
    labels = np.array([0, 2, 0, 0, MISSING, 0, 2, MISSING])
    weights = class_weights(labels, 4)
    np.testing.assert_allclose(weights, [6 / 8, 0, 6 / 4, 0], rtol=1e-6)
    assert weights.dtype == np.float32
    assert weights[labels[labels != MISSING]].mean() == pytest.approx(1)


def test_class_weights_of_labels_that_are_all_missing_are_zero() -> None:
    assert class_weights(np.array([MISSING, MISSING]), 3).tolist() == [0, 0, 0]
    assert class_weights(np.array([], int), 3).tolist() == [0, 0, 0]


def test_example_weight_is_the_mean_over_heads_with_one_for_a_missing_label() -> None:
    labels = {"a": np.array([0, 0, 0, 1]), "b": np.array([1, 0, MISSING, MISSING])}
    # a: 4 / (2 * 3) = 2/3 and 4 / (2 * 1) = 2; b: 1 and 1.
    weights = example_weights(labels, {"a": 2, "b": 2})
    np.testing.assert_allclose(weights, [5 / 6, 5 / 6, 5 / 6, 3 / 2], rtol=1e-6)
    assert weights.dtype == np.float64


def test_labels_that_fit_pass() -> None:
    check_labels(3, {"a": np.array([0, 1, MISSING]), "b": np.array([4, 4, 4])}, {"a": 2, "b": 5, "unused": 7})
    check_labels(0, {"a": np.array([], int)}, {"a": 2})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": np.array([0, 1])}, "'a' has 2 labels for 3 pictures; the numbers must be equal"),
        ({"a": np.array([0, 1, 0]), "b": np.array([0, 0, 0])}, "`num_classes` has no entry for head 'b'"),
        ({"a": np.array([0, 1, 2])}, "'a' must have class numbers from 0 to 1, or -1 .* Received: 0 to 2"),
        ({"a": np.array([-2, 1, 0])}, "'a' must have class numbers from 0 to 1, or -1 .* Received: -2 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused_by_head(labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_labels(3, labels, {"a": 2})
