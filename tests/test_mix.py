"""Mixup and cutmix: pixels, shares, labels and losses belong together."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from test_augment import seeds_for

from pipelines import augment
from pipelines.batches import augment_batch
from pipelines.mix import mix_labels, partner


def both_ways(mix: augment.Mix, pictures: np.ndarray, choice) -> tuple[np.ndarray, np.ndarray]:
    """Apply eagerly and inside `Dataset.map`, where the number of pictures is not known; both must agree."""
    choice = tf.nest.map_structure(tf.constant, choice)

    def in_graph(pictures: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return mix.apply(pictures, tf.nest.map_structure(lambda values: tf.gather(values, places), choice))

    mixed, kept = mix.apply(tf.constant(pictures), choice)
    assert mixed.dtype == kept.dtype == tf.float32
    slices = tf.data.Dataset.from_tensor_slices((pictures, np.arange(len(pictures))))
    data = slices.batch(len(pictures)).map(in_graph)
    assert data.element_spec[0].shape.as_list() == [None, *pictures.shape[1:]]
    ((mapped, mapped_kept),) = data
    np.testing.assert_allclose(mapped, mixed, rtol=0, atol=1e-3)
    np.testing.assert_allclose(mapped_kept, kept, rtol=0, atol=1e-6)
    return mixed.numpy(), kept.numpy()


@pytest.fixture(params=["uint8", "float32"])
def pictures(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3)).astype(request.param)


MIXES = {
    "mixup": lambda: augment.mixup(1.0),
    "cutmix": lambda: augment.cutmix(1.0),
    "either": lambda: augment.mix_of(augment.mixup(1.0), augment.cutmix(1.0)),
}


def test_partner_is_the_next_and_of_the_last_the_first() -> None:
    assert partner(tf.constant([5, 6, 7])).numpy().tolist() == [6, 7, 5]
    np.testing.assert_array_equal(partner(tf.constant([[1, 2], [3, 4]])), [[3, 4], [1, 2]])


def test_mixup_blends_with_the_next_picture_in_its_proportion(pictures) -> None:
    kept = np.array([1, 0, 0.5, 0.25, 0.9], "float32")
    mixed, shares = both_ways(augment.mixup(), pictures, kept)
    for number in range(5):
        own, other = pictures[number].astype(float), pictures[(number + 1) % 5].astype(float)
        np.testing.assert_allclose(mixed[number], kept[number] * own + (1 - kept[number]) * other, rtol=1e-5)
    np.testing.assert_array_equal(shares, kept)


def test_cutmix_takes_the_rectangle_of_the_next_picture_and_counts_what_is_inside(pictures) -> None:
    boxes = np.array([[-2, -1, 4, 5], [1, 2, 3, 4], [5, 7, 4, 4], [3, 3, 0, 0], [-3, -4, 20, 20]], "int32")
    mixed, shares = both_ways(augment.cutmix(), pictures, boxes)
    expected = pictures.astype("float32")
    expected[0, 0:2, 0:4] = pictures[1, 0:2, 0:4]
    expected[1, 1:4, 2:6] = pictures[2, 1:4, 2:6]
    expected[2, 5:7, 7:9] = pictures[3, 5:7, 7:9]
    expected[4] = pictures[0]
    np.testing.assert_array_equal(mixed, expected)
    np.testing.assert_allclose(shares, [55 / 63, 51 / 63, 59 / 63, 1, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_share_that_mixup_keeps_is_beta_distributed(alpha) -> None:
    kept = augment.mixup(alpha).draw(seeds_for(5000), (8, 8, 3)).numpy()
    assert stats.kstest(kept, stats.beta(alpha, alpha).cdf).pvalue > 0.001
    assert kept.min() >= 0
    assert kept.max() <= 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_area_that_cutmix_takes_is_beta_distributed_in_the_shape_of_the_picture(alpha) -> None:
    """Of 10 x 20 pixels, k rows are taken for an area from k^2 up to (k + 1)^2 hundredths."""
    boxes = augment.cutmix(alpha).draw(seeds_for(20_000), (10, 20, 3)).numpy()
    shares = np.diff(stats.beta(alpha, alpha).cdf((np.arange(11) / 10) ** 2))
    counts = np.bincount(np.minimum(boxes[:, 2], 9))  # an area within rounding of all takes ten rows
    assert stats.chisquare(counts, 20_000 * shares).pvalue > 0.001
    assert set(boxes[:, 3] - 2 * boxes[:, 2]) == {0, 1}


def test_share_has_its_distribution_also_where_not_every_picture_is_mixed() -> None:
    kept = augment.mixup(2.0, 0.3).draw(seeds_for(10_000), (8, 8, 3)).numpy()
    assert stats.kstest(kept[kept < 1], stats.beta(2, 2).cdf).pvalue > 0.001


def test_cutmix_is_centred_on_every_pixel_equally_often_whatever_the_area() -> None:
    boxes = augment.cutmix().draw(seeds_for(30_000), (5, 6, 3)).numpy()
    centre = boxes[:, :2] + boxes[:, 2:] // 2
    assert centre.min() == 0
    assert centre.max(axis=0).tolist() == [4, 5]
    assert stats.chisquare(np.bincount(6 * centre[:, 0] + centre[:, 1])).pvalue > 0.001
    assert np.abs(np.corrcoef(np.concatenate([centre, boxes[:, 2:3]], axis=1).T)[[0, 0, 1], [1, 2, 2]]).max() < 0.025


@pytest.mark.parametrize("probability", [0, 0.3, 1])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_pictures_are_mixed_with_the_probability_and_others_keep_everything(name, probability) -> None:
    mix = getattr(augment, name)(1.0, probability)
    pictures = tf.random.stateless_uniform([10_000, 30, 30, 1], (0, 0), 1, 255)
    mixed, kept = mix.apply(pictures, mix.draw(seeds_for(10_000), (30, 30, 1)))
    changed = (mixed != pictures).numpy().any(axis=(1, 2, 3))
    # One box in 900 is smaller than a pixel.
    assert changed.mean() == pytest.approx(probability, abs=0.015)
    np.testing.assert_array_equal(kept.numpy()[~changed], 1)
    np.testing.assert_array_equal(changed, kept.numpy() < 1)


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_labels_have_the_weights_of_the_pixels(name, dtype) -> None:
    """Pictures painted in their class number: the mean pixel is the mean class of the label."""
    mix = MIXES[name]()
    classes = np.array([3, 0, 8, 5, 5, 1, 9, 2])
    pictures = np.tile(classes[:, None, None, None], (1, 10, 13, 1)).astype(dtype)
    seen = []
    for seed in range(20):
        choice = mix.draw(seeds_for(8, seed), (10, 13, 1))
        mixed, kept = mix.apply(tf.constant(pictures), choice)
        labels, weights = mix_labels({"label": tf.one_hot(classes, 10)}, {"label": tf.ones(8)}, kept)
        np.testing.assert_allclose(labels["label"].numpy() @ np.arange(10), mixed.numpy().mean((1, 2, 3)), atol=1e-4)
        np.testing.assert_allclose(labels["label"].numpy().sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(weights["label"], 1, rtol=1e-6)
        seen.append(kept.numpy())
    assert len(np.unique(seen)) > 30
    both_ways(mix, pictures, mix.draw(seeds_for(8), (10, 13, 1)))


def test_mixtures_in_a_row_still_have_the_weights_of_the_pixels() -> None:
    classes = np.array([3, 0, 8, 5, 5, 1, 9, 2])
    pictures = tf.constant(np.tile(classes[:, None, None, None], (1, 10, 13, 1)).astype("uint8"))
    labels, weights = {"label": tf.one_hot(classes, 10)}, {"label": tf.ones(8)}
    x, y, weight = augment_batch(pictures, labels, weights, seeds_for(8), [augment.cutmix(), augment.mixup(1.0)])
    np.testing.assert_allclose(y["label"].numpy() @ np.arange(10), x.numpy().mean((1, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(weight["label"], 1, rtol=1e-6)
    assert (np.count_nonzero(y["label"].numpy(), axis=1) == 3).any()


def test_loss_of_a_mixed_picture_is_the_weighted_sum_of_both_losses() -> None:
    """Weights of their own, soft labels, labels missing for one, both or neither of two pictures, two heads."""
    rng = np.random.default_rng(0)
    kept = np.array([0.3, 0.9, 0.5, 1, 0, 0.25], "float32")
    labels = {"a": rng.dirichlet(np.ones(4), 6).astype("float32"), "b": np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]}
    weights = {
        "a": np.array([1, 0, 2.5, 0.5, 0, 0], "float32"),
        "b": np.array([0, 0, 1, 1, 1, 1], "float32"),
    }
    for head in labels:
        labels[head][weights[head] == 0] = 0  # as `labels.smooth` has it
    mixed, summed = mix_labels(labels, weights, tf.constant(kept))
    assert set(mixed) == set(summed) == {"a", "b"}
    for head, rows in labels.items():
        logits = np.log(rng.dirichlet(np.ones(rows.shape[1]), 6))
        loss = -(summed[head].numpy() * (mixed[head].numpy() * logits).sum(axis=1))
        own = -weights[head] * (rows * logits).sum(axis=1)
        other = -np.roll(weights[head], -1) * (np.roll(rows, -1, axis=0) * logits).sum(axis=1)
        np.testing.assert_allclose(loss, kept * own + (1 - kept) * other, rtol=1e-5, atol=1e-7)
        assert mixed[head].dtype == summed[head].dtype == tf.float32
        assert np.isfinite(mixed[head].numpy()).all()


def test_label_of_a_picture_that_has_one_is_not_diluted_by_a_partner_without() -> None:
    labels = {"label": tf.constant([[0.0, 1.0], [0.0, 0.0]])}
    mixed, weights = mix_labels(labels, {"label": tf.constant([1.0, 0.0])}, tf.constant([0.75, 0.5]))
    np.testing.assert_array_equal(mixed["label"], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(weights["label"], [0.75, 0.5])


def test_mix_of_two_gives_every_picture_one_of_them(pictures) -> None:
    either = augment.mix_of(augment.mixup(), augment.cutmix())
    is_first = np.array([True, False, False, True, False])
    kept = np.full(5, 0.75, "float32")
    boxes = np.tile(np.array([[0, 0, 3, 3]], "int32"), (5, 1))
    mixed, shares = both_ways(either, pictures, (is_first, kept, boxes))
    blended = 0.75 * pictures + 0.25 * np.roll(pictures, -1, axis=0)
    cut = pictures.astype(float)
    cut[:, :3, :3] = np.roll(pictures, -1, axis=0)[:, :3, :3]
    np.testing.assert_allclose(mixed, np.where(is_first[:, None, None, None], blended, cut), rtol=1e-5)
    np.testing.assert_allclose(shares, np.where(is_first, 0.75, 54 / 63), rtol=1e-6)


def test_mix_of_two_takes_both_equally_often_and_leaves_their_distributions() -> None:
    is_first, kept, _ = augment.mix_of(augment.mixup(1.0), augment.cutmix()).draw(seeds_for(10_000), (8, 8, 3))
    assert is_first.numpy().mean() == pytest.approx(0.5, abs=0.015)
    for chosen in (is_first.numpy(), ~is_first.numpy()):
        assert stats.kstest(kept.numpy()[chosen], "uniform").pvalue > 0.001


@pytest.mark.parametrize("name", MIXES)
def test_what_is_drawn_for_a_picture_does_not_depend_on_its_batch(name) -> None:
    mix = MIXES[name]()
    whole = mix.draw(seeds_for(12), (8, 12, 3))
    part = mix.draw(seeds_for(12)[4:9], (8, 12, 3))
    for values, expected in zip(tf.nest.flatten(part), tf.nest.flatten(whole), strict=True):
        np.testing.assert_array_equal(values, expected[4:9])


@pytest.mark.parametrize("make", [augment.mixup, augment.cutmix])
@pytest.mark.parametrize("arguments", [(0, 1), (-1, 1), (1, -0.1), (1, 1.1)])
def test_mixtures_refuse_wrong_arguments(make, arguments) -> None:
    with pytest.raises(
        ValueError, match=r"`alpha` must be positive and `probability` lie in \[0, 1\]. Received: alpha="
    ):
        make(*arguments)
