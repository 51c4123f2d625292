"""`kerascnn models`: the list of networks, and the layers of one."""

import json
import re
from collections.abc import Callable

import pytest

import kerascnn
from kerascnn.layer_table import layer_table, without_values

Run = Callable[..., object]


def test_list_has_a_line_for_every_network(run_here: Run) -> None:
    answer = run_here("models")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    names = kerascnn.list_models()
    assert [line.split()[0] for line in lines[1 : len(names) + 1]] == names
    assert max(map(len, lines)) <= 120
    (line,) = [line for line in lines if line.startswith("resnet18 ")]
    assert line.split(maxsplit=5) == [
        *("resnet18", "11,689,512", "1,814.1", "M", "224x224x3"),
        "69.76 % ImageNet top-1 (torchvision V1)",
    ]
    assert "torchvision V1: https://" in answer.stdout


def test_pattern_lists_what_matches_and_writes_it(run_here: Run, tmp_path) -> None:
    answer = run_here("models", "resnet[25]?", "--json", "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [network["name"] for network in found] == ["resnet20", "resnet50", "resnet56"]
    assert found[0] == {
        "name": "resnet20",
        "trainable_parameters": 269_722,
        "multiply_adds": 40_551_040,
        "input_shape": [32, 32, 3],
        "classes": 10,
        "published": [
            {
                "accuracy": 91.25,
                "data": "CIFAR-10",
                "source": "He et al. 2015",
                "link": "https://github.com/akamaster/pytorch_resnet_cifar10",
            }
        ],
    }
    assert "3 networks" in answer.stdout


def test_one_network_shows_its_layers_sums_accuracy_and_options(run_here: Run) -> None:
    answer = run_here("models", "resnet18")
    assert answer.returncode == 0, answer.stderr
    assert max(map(len, answer.stdout.splitlines())) <= 120
    assert "\x1b" not in answer.stdout
    stem = next(line for line in answer.stdout.splitlines() if line.startswith("stem_conv "))
    assert stem.split() == ["stem_conv", "Conv2D", "112x112x64", "7", "2", "9,408", "118,013,952"]
    pool = next(line for line in answer.stdout.splitlines() if line.startswith("pool "))
    assert pool.split() == ["pool", "GlobalAveragePooling2D", "512", "all"]
    for line in (
        "resnet18: 224x224x3 pixels, 1000 classes",
        "parameters     11,689,512 trainable, 11,699,112 in all",
        "multiply-adds  1,814,073,344 a picture",
        "published      69.76 % ImageNet top-1 (torchvision V1, https://docs.pytorch.org/vision/stable/models.html)",
        "options        blocks=(2,2,2,2), stem='imagenet'",
    ):
        assert line in answer.stdout
    assert re.search(r"^common +mean=None,.* activation='relu'", answer.stdout, re.MULTILINE)


def test_options_size_and_classes_reach_the_builder(run_here: Run, tmp_path) -> None:
    settings = ("--set", "stem=small", "--set", "width=0.125", "--set", "mean=[1, 2, 3]")
    answer = run_here("models", "resnet18", *settings, "--image-size", "24x16", "--classes", 7, "--json", "one.json")
    assert answer.stdout.startswith("resnet18: 24x16x3 pixels, 7 classes, stem='small', width=0.125, mean=[1, 2, 3]\n")
    one = json.loads((tmp_path / "one.json").read_text())
    model = without_values(lambda: kerascnn.build("resnet18", (24, 16, 3), 7, stem="small", width=0.125))
    assert one["parameters"] == model.count_params()
    assert one["options"] == {"stem": "small", "width": 0.125, "mean": [1, 2, 3]}
    assert [layer["name"] for layer in one["layers"]] == [row.name for row in layer_table(model)]
    first = next(layer for layer in one["layers"] if layer["kind"] == "Conv2D")
    assert first == {
        "name": "stem_conv",
        "kind": "Conv2D",
        "output_shape": [24, 16, 8],
        "receptive_field": [3, 3],
        "stride": [1.0, 1.0],
        "trainable_parameters": 216,
        "parameters": 216,
        "multiply_adds": 82_944,
    }


def test_quiet_prints_nothing(run_here: Run, tmp_path) -> None:
    answer = run_here("models", "lenet5", "--quiet", "--json", "lenet5.json")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert json.loads((tmp_path / "lenet5.json").read_text())["trainable_parameters"] == 61_706


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnt18"], "Unknown network 'resnt18'. Did you mean resnet18"),
        (["vog*"], "No network matches 'vog*'. Available: airbench94, "),
        (["resnet18", "--set", "stems=small"], "has no option 'stems'. Did you mean stem"),
        (["resnet18", "--set", "stem"], "`--set` needs FIELD=VALUE"),
        (["resnet18", "--image-size", "large"], "`--image-size` must be a number of pixels"),
        (["resnet*", "--classes", "3"], "are for one network. Received: the pattern 'resnet*'"),
        (["resnet18", "--json", "nowhere/one.json"], "There is no folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run_here: Run, arguments: list[str], message: str) -> None:
    answer = run_here("models", *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("kerascnn: error: ")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
