"""Several devices of TensorFlow train the network of one; what the plan makes of batch, rate and BatchNorm."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from apps.devices import ONE, Devices, open_devices
from apps.hosts import Hosts
from apps.resolve import resolve
from apps.scaling import check_scaling, check_several, divide, scale
from callbacks import read_snapshot

# Smooth: see test_hosts.py.
OPTIONS = [
    *("--epochs", "2", "--lr", "0.05", "--width", "0.25", "--precision", "float32"),
    *("--model", "resnet20", "--set", "mixup=0.2", "--set", "activation=silu", "--saved-models", "saved_models"),
]
EIGHT = Devices([f"gpu:{number}" for number in range(4)], Hosts(0, 2), object())


def recipe_of(**choices):
    return resolve({"precision": "float32", **choices}, 5000, (32, 32), [["cat", "dog"]])


def compete(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "apps.cli", "compete", "digits", "--out", "run", *OPTIONS, *options]
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "batch, options, alone",
    [
        (128, ("--average", "ema", "--batch-norm", "device"), ("--average", "ema", "--set", "norm_parts=2")),
        # Few steps: made orthogonal in bfloat16, they turn the last bit of a gradient into a bit of that.
        (512, ("--set", "optimizer=muon_sgd", "--epochs", "1"), ("--set", "optimizer=muon_sgd", "--epochs", "1")),
    ],
)
def test_two_devices_of_tensorflow_train_the_network_of_one(
    tmp_path: Path, batch: int, options: tuple, alone: tuple
) -> None:
    said = compete(tmp_path / "two", "--devices", "2", "--batch-size", str(batch), *options)
    assert f"devices   2 x cpu: of a batch of {batch}, {batch // 2} pictures on each" in said
    compete(tmp_path / "one", "--batch-size", str(batch), *alone)
    runs = [read_snapshot(tmp_path / name / "run" / "checkpoints" / "1" / "last.npz")[0] for name in ("one", "two")]
    for first, second in zip(*runs, strict=True):
        np.testing.assert_allclose(first.astype("float64"), second.astype("float64"), atol=1e-4)
    first, second = (tmp_path / name / "run" / "submission.csv" for name in ("one", "two"))
    assert first.read_text() == second.read_text()


def test_parts_of_a_processor_are_replicas_that_share_a_step() -> None:
    script = (
        "from apps.startup import import_tensorflow; import_tensorflow(parts=2)\n"
        "from apps.devices import open_devices; from apps.hosts import ALONE\n"
        "print(open_devices(2, ALONE).distribution.extended.worker_devices)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.count("CPU:0") == ended.stdout.count("CPU:1") == 1


def test_batch_of_every_device_and_its_rate_follow_the_rule() -> None:
    recipe = recipe_of(model="resnet18", batch_size=64)
    assert (recipe.optimizer, recipe.lr) == ("nesterov", 0.15)
    for rule, rate in (("linear", 1.2), ("root", 0.15 * 8**0.5), ("suit", 1.2)):
        found = scale(recipe, rule, EIGHT, 5000)
        assert (found.batch_size, found.lr) == (512, pytest.approx(rate))
    assert scale(recipe, "keep", EIGHT, 5000) == scale(recipe, "linear", ONE, 5000) == recipe


def test_rate_that_suits_muon_stays_and_those_of_shifts_and_head_grow_with_the_root() -> None:
    recipe = recipe_of(batch_size=64)
    assert recipe.optimizer == "muon_sgd"
    found = scale(recipe, "suit", EIGHT, 5000)
    assert found.lr == recipe.lr
    assert found.bias_rate == pytest.approx(recipe.bias_rate * 8**0.5)
    assert found.head_rate == pytest.approx(recipe.head_rate * 8**0.5)


def test_batch_grows_no_further_than_the_pictures_and_the_rate_with_it() -> None:
    found = scale(recipe_of(model="resnet18", batch_size=64, lr=0.1), "linear", EIGHT, 160)
    assert (found.batch_size, found.lr) == (160, pytest.approx(0.25))


def test_batch_is_divided_equally_and_what_was_asked_for_is_not_changed() -> None:
    recipe = recipe_of(batch_size=100)
    assert divide(recipe, EIGHT).batch_size == 96
    with pytest.raises(ValueError, match=r"a multiple of the 8 devices, such as 96\. Received: 100"):
        divide(recipe, EIGHT, may_change=False)
    with pytest.raises(ValueError, match=r"such as 8\. Received: 4"):
        divide(recipe_of(batch_size=4), EIGHT)
    assert divide(recipe, ONE, may_change=False) == recipe


def test_parts_of_batch_norm_fit_batch_and_devices() -> None:
    assert divide(recipe_of(batch_size=64, norm_parts=16), EIGHT).norm_parts == 16
    for parts in (4, 12):
        with pytest.raises(ValueError, match=f"`norm_parts` must divide the batch of 64.*Received: {parts}"):
            divide(recipe_of(batch_size=64, norm_parts=parts), EIGHT)
    with pytest.raises(ValueError, match="`norm_parts` must divide the batch of 64"):
        divide(recipe_of(batch_size=64, norm_parts=5), ONE)


def test_validation_is_shared_equally() -> None:
    assert ONE.evaluated == 256
    assert Devices(list("abc"), distribution=object()).evaluated == 255
    assert Devices(["gpu:0"], Hosts(0, 300), object()).evaluated == 300


def test_unknown_rules_and_what_several_devices_cannot_do_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`--scaling` must be one of keep, suit, linear, root\. Received: cubic"):
        check_scaling("cubic", "global")
    with pytest.raises(ValueError, match=r"`--batch-norm` must be one of global, device\. Received: local"):
        check_scaling("keep", "local")
    with pytest.raises(ValueError, match="`--minutes` does not go with several hosts: each has a clock of its own"):
        check_several(recipe_of(), EIGHT, paced=True)
    check_several(recipe_of(hardest=0.5), ONE, paced=True)


def test_more_devices_than_there_are_is_an_error_and_a_single_one_needs_no_distribution() -> None:
    with pytest.raises(ValueError, match="`--devices 64` asks for more than there are"):
        open_devices(64, Hosts())
    assert open_devices(0, Hosts()) == open_devices(1, Hosts()) == open_devices(None, Hosts()) == ONE


def test_devices_are_told_in_words() -> None:
    assert EIGHT.describe() == "8 x gpu, 4 on each of 2 hosts"
    assert Devices(["/device:GPU:0", "/device:GPU:1"], distribution=object()).describe() == "2 x gpu"
    assert Devices(["/job:localhost/replica:0/task:0/device:CPU:0"] * 2).describe() == "2 x cpu"
