"""`kerascnn bench pipeline`: augmentation in memory, streaming from disk, and the pipeline's share of a training."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a server for its newest version

import albumentations
import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from apps.augmentation import augmentation
from apps.bench import Contestant, Figure, measure, print_figures
from apps.console import Console
from apps.data import Data
from apps.network import build_network, compile_network
from apps.resolve import resolve
from pipelines import augment, make_train
from pipelines.encoded import Encoded
from pipelines.pictures import check_pictures
from pipelines.stream import Streamed

BATCH = 512
STREAM_BATCH = 64
CLASSES = {"label": 10}


def bench_pipeline(rounds: int, console: Console) -> dict[str, list[Figure]]:
    """All tables by their titles."""
    tables = {}
    pictures = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3)).astype("uint8")
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), 1000)
        for title, contestants, reference in (
            ("Flip, crop with padding 4, cutout 8; 32x32, batch 512, in memory", flip_crop_cutout(pictures), OURS),
            ("Other operations of ours; 32x32, batch 512, in memory", operations(pictures), None),
            ("JPEG files of 256x256: random resized crop to 224x224, flip; batch 64", streaming(paths), BARE),
            ("Training the default CIFAR-10 network, batch 256", training(pictures), REPEATED),
        ):
            tables[title] = measure(contestants, rounds)
            print_figures(title, tables[title], console, reference)
    return tables


OURS = "kerascnn"
BARE = "bare decoding (read, decode, batch)"
REPEATED = "one batch, repeated"


def flip_crop_cutout(pictures: np.ndarray) -> list[Contestant]:
    """The same work by ours, Keras layers and Albumentations, each fed by tf.data."""
    basic = [augment.random_crop(4), augment.horizontal_flip(), augment.cutout(8)]
    layers = [keras.layers.RandomCrop(32, 32), keras.layers.RandomFlip("horizontal")]
    # A square of 8 pixels in 32: 1/16 of the area.
    layers.append(keras.layers.RandomErasing(factor=(1, 1), scale=(1 / 16, 1 / 16), fill_value=0.0))
    transform = albumentations.Compose(
        [
            albumentations.PadIfNeeded(40, 40, border_mode=4),  # OpenCV's number for numpy's "reflect"
            albumentations.RandomCrop(32, 32),
            albumentations.HorizontalFlip(),
            albumentations.CoarseDropout(
                num_holes_range=(1, 1), hole_height_range=(8, 8), hole_width_range=(8, 8), fill=0, p=1.0
            ),
        ]
    )

    def by_keras(x: tf.Tensor) -> tf.Tensor:
        x = tf.pad(tf.cast(x, "float32"), [[0, 0]] * (x.shape.rank - 3) + [[4, 4], [4, 4], [0, 0]], "REFLECT")
        for layer in layers:
            x = layer(x, training=True)
        return x

    def by_albumentations(batch: np.ndarray) -> np.ndarray:
        return np.stack([transform(image=picture)["image"] for picture in batch])

    shuffled = tf.data.Dataset.from_tensor_slices(pictures).shuffle(len(pictures), seed=0).repeat()
    return [
        _batches(OURS, make_train(pictures, _labels(pictures), CLASSES, batch_size=BATCH, augmentation=basic), BATCH),
        _batches(
            "Keras layers on batches (one crop for all of a batch)",
            shuffled.batch(BATCH).map(by_keras, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2),
            BATCH,
        ),
        _batches(
            "Keras layers on single pictures (as ours: a crop each)",
            shuffled.map(by_keras, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2),
            BATCH,
        ),
        _batches(
            "Albumentations",
            shuffled.batch(BATCH)
            .map(
                lambda x: tf.cast(tf.numpy_function(by_albumentations, [x], tf.uint8), "float32"),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .prefetch(2),
            BATCH,
        ),
    ]


def operations(pictures: np.ndarray) -> list[Contestant]:
    """Ours one by one, and the usual lists."""
    basic = [augment.random_crop(4), augment.horizontal_flip(), augment.cutout(8)]
    lists: dict[str, Sequence[Any]] = {
        "nothing": [],
        "flip, crop, cutout, mixup": [*basic, augment.mixup(0.2)],
        "flip, crop, cutout, cutmix": [*basic, augment.cutmix(1.0)],
        **{f"affine (all four), fill {fill}": [augment.affine(15, 0.1, 5, 0.1, fill)] for fill in augment.FILL_MODES},
        "random resized crop": [augment.random_resized_crop((32, 32))],
        "brightness, contrast, saturation": [
            augment.brightness(0.3),
            augment.contrast(0.3),
            augment.saturation(0.3),
        ],
        "hue": [augment.hue(0.1)],
        "Gaussian noise": [augment.gaussian_noise(8)],
        "random erasing, noise": [augment.random_erasing()],
        "RandAugment, 2 operations": [augment.randaugment(2, 9)],
    }
    return [
        _batches(name, make_train(pictures, _labels(pictures), CLASSES, batch_size=BATCH, augmentation=steps), BATCH)
        for name, steps in lists.items()
    ]


def streaming(paths: Sequence[Path]) -> list[Contestant]:
    """From files: what decoding alone costs, and the whole pipeline."""
    encoded = Encoded.files(paths)
    check_pictures(encoded)
    steps = [augment.random_resized_crop((224, 224)), augment.horizontal_flip()]
    labels = {"label": np.arange(len(encoded)) % 10}

    def decode(path: tf.Tensor) -> tf.Tensor:
        picture = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(picture, [256, 256, 3])

    names = tf.data.Dataset.from_tensor_slices([os.fspath(path) for path in paths]).repeat()
    bare = names.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(STREAM_BATCH).prefetch(2)
    pictures = Streamed(encoded, (256, 256))
    return [
        _batches(BARE, bare, STREAM_BATCH),
        _batches(
            "kerascnn, nothing but decoding",
            make_train(pictures, labels, CLASSES, batch_size=STREAM_BATCH),
            STREAM_BATCH,
        ),
        _batches(
            "kerascnn, random resized crop and flip",
            make_train(pictures, labels, CLASSES, batch_size=STREAM_BATCH, augmentation=steps),
            STREAM_BATCH,
        ),
    ]


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 256x256 that compress like photographs (smooth shapes, some noise; about 25 kB each)."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 24, 3)).astype("uint8"))
        smooth = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC)).astype("float32")
        pixels = np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype("uint8")
        path = folder / f"{number:05d}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        paths.append(path)
    return paths


def training(pictures: np.ndarray) -> list[Contestant]:
    """Training steps with the pipeline beside them, and with one batch that is there already."""
    data = Data(pictures, _labels(pictures), {"label": [f"class {number}" for number in range(10)]})
    recipe = resolve({"batch_size": 256, "epochs": 1}, 45_000, (32, 32), list(data.classes.values()))
    model = build_network(recipe, data, recipe.precision)
    compile_network(model, recipe, data.num_classes, 1_000_000)
    batches = make_train(
        pictures,
        data.labels,
        CLASSES,
        batch_size=256,
        augmentation=augmentation(recipe, data.statistics[0]),
        label_smoothing=0.15,
    )
    repeated = tf.data.Dataset.from_tensors(next(iter(batches))).repeat()

    def start(data: tf.data.Dataset) -> Callable[[], object]:
        model.make_train_function()
        iterator = iter(data)
        return lambda: model.train_function(iterator)  # what `fit` calls for every step

    return [
        Contestant(REPEATED, 256, lambda: start(repeated), seconds=5.0),
        Contestant("the pipeline (crop, flip, smoothed labels)", 256, lambda: start(batches), seconds=5.0),
    ]


def _labels(pictures: np.ndarray) -> dict[str, np.ndarray]:
    return {"label": np.arange(len(pictures)) % 10}


def _batches(name: str, data: tf.data.Dataset, batch_size: int) -> Contestant:
    """Take batches of an endless data set, one after the other."""

    def start() -> Callable[[], object]:
        batches = iter(data)
        return lambda: next(batches)

    return Contestant(name, batch_size, start)
