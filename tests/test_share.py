"""Shares of a batch: put together they are the batch of one process, and each makes its own pictures only."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_batches import EVERYTHING, SOME

from pipelines import augment, make_eval, make_train
from pipelines.encoded import Encoded
from pipelines.labels import MISSING
from pipelines.randomness import in_packets
from pipelines.share import Share
from pipelines.stream import Pictures, Streamed

CLASSES = {"label": 3, "kind": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """29 JPEG files of one size."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(29):
        pixels = generator.integers(0, 256, (6, 5, 3)).astype("uint8")
        Image.fromarray(pixels).resize((20, 24)).save(folder / f"{number:02d}.jpg", quality=95)
    return sorted(folder.iterdir())


def labels() -> dict[str, np.ndarray]:
    return {"label": np.arange(29) ** 2 % 3, "kind": np.where(np.arange(29) % 5, np.arange(29) % 2, MISSING)}


def pixels(files: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in files])


def together(make: Callable[..., tf.data.Dataset], of: int, batches: int) -> list:
    """The first batches of all shares, one share after the other."""
    parts = [list(make(share=Share(number, of)).take(batches)) for number in range(of)]
    assert len({len(part) for part in parts}) == 1
    return [tf.nest.map_structure(lambda *rows: np.concatenate(rows), *rows) for rows in zip(*parts, strict=True)]


def assert_equal_bits(found: list, expected: list) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for values, wanted in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize(("streamed", "of"), [(True, 2), (False, 4)])
def test_shares_of_training_together_are_the_batch_of_one_process(files, streamed, of) -> None:
    pictures: Pictures = Streamed(Encoded.files(files), (24, 20)) if streamed else pixels(files)

    def make(share: Share | None = None) -> tf.data.Dataset:
        options = {"augmentation": EVERYTHING, "label_smoothing": 0.1, "balance": "weights", "seed": 3}
        return make_train(pictures, labels(), CLASSES, batch_size=12, share=share, **options)

    assert_equal_bits(together(make, of, 5), list(make().take(5)))


@pytest.mark.parametrize(
    "options",
    [
        {"balance": "sampling"},
        {"only": np.arange(3, 27, 2)},
        {"first_epoch": 2, "first_step": 1, "index": np.arange(29)[::-1]},
        {"augmentation": [augment.cutmix(), augment.mixup(), augment.mixup()]},  # as many as a share has pictures
        {"augmentation": [augment.random_resized_crop((9, 9)), augment.alternating_flip()]},
        {"augmentation": [augment.shrink((12, 10)), augment.mixup()]},
    ],
)
def test_shares_are_those_of_the_whole_batch_with_every_option(files, options) -> None:
    def make(share: Share | None = None) -> tf.data.Dataset:
        every = {"augmentation": SOME, **options}
        return make_train(pixels(files), labels(), CLASSES, batch_size=9, share=share, **every)

    assert_equal_bits(together(make, 3, 5), list(make().take(5)))
    if options.get("augmentation"):
        assert_equal_bits(together(make, 9, 3), list(make().take(3)))


@pytest.mark.parametrize(("steps", "most"), [([augment.random_crop(3)], 4), ([augment.mixup(), augment.cutmix()], 6)])
def test_a_share_reads_its_own_pictures_and_one_more_for_each_mixture(files, steps, most, monkeypatch) -> None:
    read = []
    original = Encoded.read

    def counted(self: Encoded, place: int) -> bytes:
        read.append(place)
        return original(self, place)

    monkeypatch.setattr(Encoded, "read", counted)
    monkeypatch.setattr("pipelines.encoded.READERS", 1)  # one after the other
    data = make_train(
        Streamed(Encoded.files(files), (24, 20)),
        labels(),
        CLASSES,
        batch_size=28,
        augmentation=steps,
        share=Share(6, 7),
        only=np.arange(28),
    )
    epochs = list(data.take(1))
    assert len(epochs[0][0]) == 4
    # The stream reads ahead: the first batch's pictures are the first ones.
    expected = make_train(
        np.tile(np.arange(29, dtype="uint8")[:, None, None, None], (1, 24, 20, 3)),
        labels(),
        CLASSES,
        batch_size=28,
        only=np.arange(28),
    )
    order = next(iter(expected))[0][:, 0, 0, 0].numpy().astype(int)
    assert set(read[:most]) == set(np.roll(order, -24)[:most])


def test_functions_of_single_numbers_do_not_depend_on_where_they_stand() -> None:
    values = np.random.default_rng(0).uniform(0.01, 6, 137).astype("float32")
    for function in (tf.exp, tf.math.log, tf.sin, tf.cos):
        whole = in_packets(function, tf.constant(values)).numpy()
        np.testing.assert_allclose(whole, function(values), rtol=1e-5)
        for start in range(0, 137, 5):
            for end in range(start + 1, 138, 7):
                np.testing.assert_array_equal(in_packets(function, tf.constant(values[start:end])), whole[start:end])


@pytest.mark.parametrize("streamed", [True, False])
def test_evaluation_by_shares_has_the_loss_and_accuracy_of_one_process(files, streamed) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input([24, 20, 3])
    features = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(inputs / 255))
    outputs = {head: keras.layers.Dense(count, name=head)(features) for head, count in CLASSES.items()}
    model = keras.Model(inputs, outputs)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    accuracy = {head: keras.metrics.CategoricalAccuracy(name="accuracy") for head in CLASSES}
    model.compile(loss=dict.fromkeys(CLASSES, loss), weighted_metrics=accuracy)
    pictures: Pictures = Streamed(Encoded.files(files), (24, 20)) if streamed else pixels(files)

    def make(share: Share | None = None, batch_size: int = 8) -> tf.data.Dataset:
        return make_eval(pictures, labels(), CLASSES, batch_size=batch_size, share=share)

    # One batch: over several of unequal size, Keras' losses of single heads under TensorFlow are not means of pictures.
    alone = model.evaluate(make(batch_size=29), verbose=0, return_dict=True)
    batches = together(make, 4, 5)
    assert [len(x) for x, _, _ in batches] == [8] * 4
    shared = model.evaluate((batch for batch in batches), verbose=0, return_dict=True, steps=4)
    assert set(shared) == {"loss", "label_loss", "kind_loss", "label_accuracy", "kind_accuracy"}
    assert shared == pytest.approx(alone, rel=1e-6)
    unequal = model.evaluate(make(), verbose=0, return_dict=True)
    for name in ("loss", "label_accuracy", "kind_accuracy"):
        assert shared[name] == pytest.approx(unequal[name], rel=1e-6)
    shown = np.concatenate([x for x, _, _ in batches])
    np.testing.assert_array_equal(shown[:29], pixels(files))
    assert np.concatenate([weight["label"] for _, _, weight in batches])[29:].tolist() == [0] * 3


def test_evaluation_without_labels_by_shares_keeps_the_order(files) -> None:
    pictures = pixels(files)
    batches = together(lambda share: make_eval(pictures, batch_size=12, share=share), 3, 9)
    assert [len(x) for x in batches] == [12, 12, 12]
    np.testing.assert_array_equal(np.concatenate(batches)[:29], pictures)


def test_impossible_shares_are_refused() -> None:
    for number, of in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=rf"`number` must lie between 0 and `of` - 1\. Received: number={number}"):
            Share(number, of)
    pictures = np.zeros((9, 4, 4, 3), "uint8")
    for make in (make_train, make_eval):
        with pytest.raises(ValueError, match=r"must be a multiple of 4\. Received: 6\."):
            make(pictures, {"a": np.zeros(9, int)}, {"a": 2}, batch_size=6, share=Share(0, 4))
