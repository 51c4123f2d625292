"""Decoding by the processes of a tf.data service: the batches are those of one process, in their order."""

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from PIL import Image

from pipelines import augment, make_train
from pipelines.encoded import Encoded
from pipelines.service import in_order
from pipelines.share import Share
from pipelines.stream import Streamed

COUNT = 41
STEPS = [augment.random_resized_crop((16, 12)), augment.horizontal_flip(), augment.gaussian_noise(4), augment.mixup()]


class Process:
    """A role of `kerascnn decode`, started; `address` is where it listens."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "apps.cli", "decode", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.address = self.process.stdout.readline().split()[-1]

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal; the exit code and what else was printed."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode, printed


@pytest.fixture(scope="module")
def dispatcher() -> Iterator[str]:
    """A dispatcher with two workers."""
    first = Process("dispatcher", "--port", "0")
    address = f"localhost:{first.address}"
    workers = [Process("worker", "--dispatcher", address) for _ in range(2)]
    yield address
    for process in (*workers, first):
        assert process.end() == (0, "stopped\n")


@pytest.fixture
def shard(tmp_path) -> Encoded:
    """JPEG pictures one after the other in two files, with their checksums."""
    generator = np.random.default_rng(0)
    stretches = []
    for name, count in (("a", COUNT // 2), ("b", COUNT - COUNT // 2)):
        with (tmp_path / name).open("wb") as file:
            for _ in range(count):
                file.write(b"between")
                start = file.tell()
                pixels = generator.integers(0, 256, (6, 5, 3)).astype("uint8")
                Image.fromarray(pixels).resize((20, 24)).save(file, "jpeg", quality=95)
                stretches.append((os.fsencode(file.name), start, file.tell() - start))
    paths, starts, lengths = zip(*stretches, strict=True)
    data = [Path(os.fsdecode(path)).read_bytes()[start : start + length] for path, start, length in stretches]
    checksums = np.array([zlib.crc32(one) for one in data])
    return Encoded(np.array(paths, object), np.array(starts), np.array(lengths), checksums)


def training(encoded: Encoded, strict: bool = False, **options) -> tuple[tf.data.Dataset, Streamed]:
    pictures = Streamed(encoded, (24, 20), strict)
    options = {"batch_size": 8, "augmentation": STEPS, "seed": 4, **options}
    return make_train(pictures, {"label": np.arange(COUNT) % 3}, {"label": 3}, **options), pictures


def assert_same_batches(found: tf.data.Dataset, expected: tf.data.Dataset, count: int) -> None:
    compared = 0
    for batch, wanted in zip(found.take(count), expected.take(count), strict=True):
        for values, right in zip(tf.nest.flatten(batch), tf.nest.flatten(wanted), strict=True):
            np.testing.assert_array_equal(values, right)
        compared += 1
    assert compared == count


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"first_epoch": 1, "first_step": 3, "balance": "sampling", "augmentation": STEPS[:2]},
        {"share": Share(1, 2)},
        {"share": Share(1, 2), "own_shards": True},
    ],
)
def test_two_workers_make_the_batches_of_one_process_in_their_order(dispatcher, shard, options) -> None:
    found, _ = training(shard, service=dispatcher, **options)
    expected, _ = training(shard, **options)
    assert_same_batches(found, expected, 17)  # of 5 an epoch


def test_batches_are_put_in_order_and_those_that_do_not_come_are_made() -> None:
    came = [4, 6, 3, 7, 5, 9, 10, 11, 12, 8, 14, 13, 15]  # 8 after four later ones
    made = []

    def make(step: int) -> str:
        made.append(step)
        return f"made {step}"

    found = list(in_order([(step, f"came {step}") for step in came], 3, make, most=4))
    assert found == [f"{'made' if step == 8 else 'came'} {step}" for step in range(3, 16)]
    assert made == [8]
    assert list(in_order([(2, "late"), (3, "next")], 3, make, most=4)) == ["next"]


def test_workers_read_whole_files_too(dispatcher, shard, tmp_path) -> None:
    paths = [tmp_path / f"{place:02d}.jpg" for place in range(COUNT)]
    for place, path in enumerate(paths):
        path.write_bytes(shard.read(place))
    assert_same_batches(training(Encoded.files(paths), service=dispatcher)[0], training(shard)[0], 7)


def test_picture_that_a_worker_finds_damaged_has_no_weight_and_is_named_here(dispatcher, shard) -> None:
    path = os.fsdecode(shard.paths[0])
    data = bytearray(Path(path).read_bytes())
    data[shard.starts[3] + 40] ^= 1
    Path(path).write_bytes(data)
    options = {"augmentation": [], "only": np.arange(8)}
    batches, pictures = training(shard, service=f"grpc://{dispatcher}", **options)
    x, _, weight = next(iter(batches))
    assert np.count_nonzero(weight["label"] == 0) == 1
    assert x.numpy()[weight["label"] == 0].max() == 0
    assert pictures.failed == {f"{path} at byte {shard.starts[3]:,}"}
    strict, _ = training(shard, strict=True, service=dispatcher, **options)
    with pytest.raises(tf.errors.OpError, match=rf"a at byte {shard.starts[3]:,}: the file is damaged"):
        list(strict.take(1))


def test_batches_that_went_with_a_killed_worker_are_made_here_in_their_place(shard) -> None:
    first = Process("dispatcher", "--port", "0")
    address = f"localhost:{first.address}"
    workers = [Process("worker", "--dispatcher", address) for _ in range(2)]
    try:
        pairs = zip(training(shard, service=address)[0].take(250), training(shard)[0].take(250), strict=True)
        for number, (batch, wanted) in enumerate(pairs):
            if number == 20:
                workers[0].end(signal.SIGKILL)
            for values, right in zip(tf.nest.flatten(batch), tf.nest.flatten(wanted), strict=True):
                np.testing.assert_array_equal(values, right)
        assert number == 249
    finally:
        workers[1].end()
        first.end()


def test_what_a_service_cannot_do_is_said_before_it_starts(dispatcher, shard) -> None:
    with pytest.raises(ValueError, match="`service` is for pictures that are streamed"):
        make_train(np.zeros((9, 4, 4, 3), "uint8"), {}, {}, batch_size=2, service=dispatcher)
    with pytest.raises(ValueError, match=r"No dispatcher answers at localhost:1 .*Start it with"):
        training(shard, service="localhost:1")
    with pytest.raises(ValueError, match=r"must be host:port\. Received: 'localhost'"):
        training(shard, service="localhost")

    def python(pictures: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(lambda values: values, [pictures], "float32"), pictures.shape)

    with pytest.raises(ValueError, match="cannot run Python functions on other machines"):
        training(shard, service=dispatcher, augmentation=[python])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["worker"], "A worker needs --dispatcher HOST:PORT"),
        (["manager"], "ROLE must be one of dispatcher, worker. Received: 'manager'."),
        (["worker", "--dispatcher", "localhost:1"], "No dispatcher answers at localhost:1"),
        (["dispatcher", "--host", "here"], "--host is for workers"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(run_here, arguments, message, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # put back afterwards
    process = run_here("decode", *arguments)
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stderr.count("\n") == 1
