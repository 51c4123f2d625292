"""Batches: a pure function of (seed, epoch, index) in training, every picture once in evaluation."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from PIL import Image

from pipelines import augment, make_eval, make_train
from pipelines.encoded import Encoded
from pipelines.labels import MISSING
from pipelines.stream import Streamed


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


def test_training_batches_say_that_they_are_endless() -> None:
    assert training().cardinality() == tf.data.INFINITE_CARDINALITY


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


def test_alternating_flip_shows_every_picture_both_ways_in_two_epochs_in_a_row() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype("uint8")

    def mirrored(first_epoch: int, epochs: int) -> np.ndarray:
        """Whether each picture was mirrored, epoch by epoch."""
        data = make_train(
            pictures,
            {"index": np.arange(40)},
            {"index": 40},
            batch_size=20,
            seed=3,
            first_epoch=first_epoch,
            augmentation=[augment.alternating_flip()],
        )
        found = np.full((epochs, 40), -1)
        for number, (x, y, _) in enumerate(data.take(2 * epochs)):
            for picture, place in zip(x.numpy(), y["index"].numpy().argmax(axis=1), strict=True):
                found[number // 2, place] = np.array_equal(picture, pictures[place, :, ::-1])
                assert found[number // 2, place] or np.array_equal(picture, pictures[place])
        return found

    found = mirrored(0, 4)
    assert 10 <= found[0].sum() <= 30  # half of them begin mirrored
    np.testing.assert_array_equal(found[1:], 1 - found[:-1])
    np.testing.assert_array_equal(mirrored(1, 1), found[1:2])


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
    assert weight["label"].numpy().tolist() == [1.5, 0, 1.5]  # as much as three pictures with labels
    assert weight["kids"].numpy().tolist() == [1.5, 1.5, 0]
    assert y["label"].numpy()[1].tolist() == [0, 0, 0]


def test_missing_label_has_no_weight_in_training() -> None:
    labels = {"label": np.array([0, MISSING, 2, 1])}
    data = make_train(numbered(4), labels, {"label": 3}, batch_size=4)
    for x, _, weight in data.take(2):
        np.testing.assert_array_equal(weight["label"], np.float32(4 / 3) * (x[:, 0, 0, 0] != 1).numpy())


def test_the_only_label_of_a_batch_counts_at_most_as_its_mean() -> None:
    labels = {"label": np.array([2] + [MISSING] * 8), "none": np.full(9, MISSING)}
    data = make_train(numbered(9), labels, {"label": 3, "none": 3}, batch_size=3)
    weights = [{head: values.numpy() for head, values in weight.items()} for _, _, weight in data.take(3)]
    assert sorted(np.concatenate([one["label"] for one in weights])) == [0] * 8 + [3]  # not 9
    assert all((one["none"] == 0).all() for one in weights)


def test_training_sees_the_chosen_pictures_only() -> None:
    labels = {"label": np.arange(10) % 3}
    data = make_train(numbered(10), labels, {"label": 3}, batch_size=3, index=np.array([2, 5, 9]))
    assert [sorted(batch) for batch in indices(data, 3)] == [[2, 5, 9]] * 3


@pytest.mark.parametrize("batch_size", [0, 11])
def test_impossible_batch_size_is_refused(batch_size) -> None:
    with pytest.raises(ValueError, match="between 1 and the 10 pictures"):
        training(batch_size=batch_size)


def test_number_of_labels_must_be_the_number_of_pictures() -> None:
    with pytest.raises(ValueError, match="'label' has 9 labels for 10 pictures"):
        make_eval(numbered(10), {"label": np.zeros(9, int)}, {"label": 2})


EVERYTHING = [
    augment.random_crop(3, "symmetric"),
    augment.affine(15, 0.2, 5, 0.1, "wrap"),
    augment.horizontal_flip(),
    augment.randaugment(2, 9),
    augment.brightness(0.3),
    augment.hue(0.1),
    augment.gaussian_noise(5),
    augment.cutout(4, "noise"),
    augment.random_erasing(),
    augment.mix_of(augment.mixup(0.4), augment.cutmix(1.0)),
]


SOME = [augment.random_crop(3), augment.gaussian_noise(5), augment.mixup(0.4)]  # quicker to make ready


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """23 JPEG files of one size."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(23):
        pixels = generator.integers(0, 256, (6, 5, 3)).astype("uint8")
        Image.fromarray(pixels).resize((20, 24)).save(folder / f"{number:02d}.jpg", quality=95)
    return sorted(folder.iterdir())


def from_files(files: list[Path], streamed: bool, **options) -> tf.data.Dataset:
    """Training batches of the files, with every kind of augmentation unless told otherwise."""
    pictures = Streamed(Encoded.files(files), (24, 20))
    if not streamed:
        pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    labels = {"label": np.arange(len(files)) % 3}
    return make_train(pictures, labels, {"label": 3}, **{"batch_size": 5, "augmentation": EVERYTHING, **options})


def digest(data: tf.data.Dataset, batches: int) -> str:
    """A hash of all numbers of the first batches."""
    found = hashlib.sha256()
    for batch in data.take(batches):
        for tensor in tf.nest.flatten(batch):
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def test_batches_are_the_same_in_memory_and_from_disk(files) -> None:
    assert digest(from_files(files, streamed=True), 9) == digest(from_files(files, streamed=False), 9)


def test_batches_are_the_same_whatever_the_number_of_threads(files) -> None:
    found = set()
    for streamed in (True, False):
        for threads in (1, 7):
            options = tf.data.Options()
            options.threading.private_threadpool_size = threads
            options.autotune.enabled = threads > 1
            found.add(digest(from_files(files, streamed).with_options(options), 9))
    assert len(found) == 1


def test_batches_are_the_same_in_another_process(files) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from test_batches import digest, from_files\n"
        "print(digest(from_files([Path(path) for path in sys.argv[2:]], True, seed=4, first_epoch=1), 6))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *map(str, files)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == digest(from_files(files, False, seed=4, first_epoch=1), 6)


@pytest.mark.parametrize("streamed", [True, False])
def test_any_step_can_be_reached_without_making_those_before(files, streamed) -> None:
    options = {"streamed": streamed, "augmentation": SOME}
    every = [x.numpy() for x, _, _ in from_files(files, **options).take(12)]  # 4 steps an epoch
    for epoch, step in ((0, 3), (1, 0), (2, 2)):
        later = from_files(files, first_epoch=epoch, first_step=step, **options)
        for expected, (x, _, _) in zip(every[4 * epoch + step :], later.take(2), strict=False):
            np.testing.assert_array_equal(x, expected)


def test_epochs_and_seeds_differ_in_order_and_augmentation(files) -> None:
    found = {
        digest(from_files(files, False, seed=seed, first_epoch=epoch, augmentation=SOME), 4)
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(found) == 9


def test_mixtures_come_after_everything_else() -> None:
    with pytest.raises(
        ValueError, match=r"must come after the operations on single pictures\. Received: mixup, cutout"
    ):
        training(operations=[augment.mixup(), augment.cutout(2)])


def test_balanced_weights_make_every_class_count_the_same() -> None:
    labels = {"a": np.array([0] * 6 + [1] * 2 + [MISSING] * 2), "b": np.array([0, 1] * 5)}
    data = make_train(numbered(10), labels, {"a": 2, "b": 2}, batch_size=10, balance="weights")
    _, y, weight = next(iter(data))
    np.testing.assert_allclose(weight["a"].numpy() @ y["a"].numpy(), [5, 5], rtol=1e-6)  # 10 pictures, 2 classes
    np.testing.assert_allclose(weight["b"].numpy(), np.ones(10), rtol=1e-6)


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    labels = {"label": np.array([0] * 8 + [1] * 2)}
    data = make_train(numbered(10), labels, {"label": 2}, batch_size=10, balance="sampling")
    for x, y, _ in data.take(5):
        assert y["label"].numpy().sum(axis=0).tolist() == [5, 5]
        shown = np.bincount(x[:, 0, 0, 0].numpy().astype(int), minlength=10)
        assert shown[:8].max() == 1 and set(shown[8:]) <= {2, 3}  # 2.5 times on average


def test_a_picture_drawn_twice_is_augmented_twice() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3)).astype("uint8")
    labels = {"label": np.array([0] * 9 + [1])}
    steps = [augment.gaussian_noise(20)]
    data = make_train(pictures, labels, {"label": 2}, batch_size=10, balance="sampling", augmentation=steps)
    x, y, _ = next(iter(data))
    rare = x.numpy()[y["label"].numpy()[:, 1] == 1]
    assert len(rare) == 5
    assert len({picture.tobytes() for picture in rare}) == 5


def test_evaluation_from_disk_yields_every_picture_once_and_says_how_many(files) -> None:
    data = make_eval(Streamed(Encoded.files(files), (24, 20)), batch_size=10)
    assert data.cardinality() == 3
    expected = np.stack([np.asarray(Image.open(file)) for file in files])
    np.testing.assert_array_equal(np.concatenate(list(data.as_numpy_iterator())), expected)


def test_picture_that_became_unreadable_has_no_weight_and_is_named(files, tmp_path) -> None:
    copies = [tmp_path / file.name for file in files]
    for file, copy in zip(files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    pictures = Streamed(Encoded.files(copies), (24, 20))
    labels = {"label": np.arange(23) % 3}
    copies[7].unlink()
    data = make_train(pictures, labels, {"label": 3}, batch_size=23)
    x, _, weight = next(iter(data))
    lost = weight["label"].numpy() == 0
    assert lost.sum() == 1
    assert x.numpy()[lost].max() == 0
    assert pictures.failed == {str(copies[7])}
    ((_, _, weight),) = make_eval(pictures, labels, {"label": 3})
    assert np.flatnonzero(weight["label"].numpy() == 0).tolist() == [7]


def test_strict_stream_names_the_unreadable_picture(files, tmp_path) -> None:
    pictures = Streamed(Encoded.files([*files, tmp_path / "gone.jpg"]), (24, 20), strict=True)
    with pytest.raises(tf.errors.OpError, match=r"gone\.jpg"):
        list(make_eval(pictures))


def test_streaming_does_not_keep_pictures_in_memory(tmp_path) -> None:
    """Decoded, 3,000 pictures of 500x500 are 2.1 GiB; the process may not grow by more than 0.4 GiB."""
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype("uint8")
    Image.fromarray(noise).resize((500, 500)).save(path)
    code = (
        "import resource, sys, numpy as np; from pipelines import make_train\n"
        "from pipelines.encoded import Encoded; from pipelines.stream import Streamed\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20\n"
        "pictures = Streamed(Encoded.files([sys.argv[1]] * 3000), (500, 500))\n"
        "before, labels = peak(), {'label': np.zeros(3000, int)}\n"
        "for batch in make_train(pictures, labels, {'label': 2}, batch_size=16).take(180): pass\n"
        "print(peak() - before)"
    )
    process = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(process.stdout) < 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "yes"}, "`balance` must be one of none, weights, sampling. Received: balance='yes'"),
        ({"smoothing": "some"}, "`smoothing` must be one of others, all. Received: smoothing='some'"),
    ],
)
def test_unknown_names_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_train(numbered(10), {"label": np.zeros(10, int)}, {"label": 2}, batch_size=2, **options)


def test_class_numbers_must_be_below_the_number_of_classes() -> None:
    with pytest.raises(ValueError, match="'label' must have class numbers from 0 to 1, or -1"):
        make_eval(numbered(10), {"label": np.full(10, 2)}, {"label": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_step": 5}, "`first_step` must lie between 0 and 4. Received: first_step=5"),
        ({"first_epoch": -1}, "`first_epoch` must lie between 0"),
        ({"seed": 2**31}, "`seed` must lie between 0"),
        ({"batch_size": 1, "augmentation": [augment.mixup()]}, "`batch_size` must be at least 2"),
    ],
)
def test_impossible_starts_are_refused(options, message) -> None:
    labels = {"label": np.zeros(10, int)}
    with pytest.raises(ValueError, match=message):
        make_train(numbered(10), labels, {"label": 2}, **{"batch_size": 2, **options})


def test_labels_and_numbers_of_classes_belong_together() -> None:
    with pytest.raises(ValueError, match="belong together"):
        make_eval(numbered(10), {"label": np.zeros(10, int)})


def test_only_some_places_are_drawn_and_what_happens_to_them_stays_the_same() -> None:
    from pipelines.order import places_of_epoch

    pictures = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3)).astype("uint8")
    index, only = np.arange(20)[::-1].copy(), np.array([1, 4, 5, 9, 12, 17])
    steps = [augment.random_crop(2), augment.alternating_flip()]

    def batches(**options) -> dict[int, np.ndarray]:
        data = make_train(
            pictures,
            {"index": np.arange(20)},
            {"index": 20},
            batch_size=2,
            index=index,
            seed=4,
            first_epoch=3,
            augmentation=steps,
            **options,
        )
        seen = {}
        for x, y, _ in data.take(3 if options else 10):
            seen |= dict(zip(y["index"].numpy().argmax(axis=1).tolist(), x.numpy(), strict=True))
        return seen

    everything, some = batches(), batches(only=only)
    assert list(some) == index[places_of_epoch(only, 2, 4, 3)].tolist()
    assert sorted(some) == sorted(index[only])
    for place, picture in some.items():
        np.testing.assert_array_equal(picture, everything[place])
    for wrong in ([1], [1, 1, 2], [0, 20], [-1, 3]):
        with pytest.raises(ValueError, match="`only` needs different places from 0 to 19, a batch of 2 at least"):
            batches(only=np.array(wrong))
    with pytest.raises(ValueError, match="`only` and `balance='sampling'` both choose"):
        batches(only=only, balance="sampling")
