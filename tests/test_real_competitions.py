"""The two real competitions of the README, where their archives lie in $KERASCNN_DATA or beside the checkout."""

import os
from pathlib import Path

import pytest
from conftest import ROOT

from pipelines import open_dataset

FOLDER = Path(os.environ.get("KERASCNN_DATA", ROOT.parent / "shared" / "data"))


def archive(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {FOLDER}; set KERASCNN_DATA to its folder")
    return path


def test_cifar10_is_complete() -> None:
    data = open_dataset(archive("cifar10-blind.zip"))
    assert (len(data.train), len(data.test), data.left_out) == (45_000, 6_000, [])
    assert data.classes["label"][:3] == ["airplane", "automobile", "bird"]


def test_clothing_is_understood_and_every_omission_is_counted() -> None:
    """4,074 rows, 4,429 + 1,267 files; three rows name no file, 358 files are named by no row."""
    data = open_dataset(archive("clothing-blind.zip"))
    assert (data.id_column, data.targets, data.group_column) == ("image", ("label", "kids"), "sender_id")
    assert {target: len(names) for target, names in data.classes.items()} == {"label": 20, "kids": 2}
    assert (len(data.train), len(data.test)) == (4_071, 1_267)
    assert data.test["path"].notna().all()
    assert data.test["id"].tolist()[:2] == ["00000", "00001"]
    assert [line.split(" (")[0] for line in data.left_out] == [
        "3 rows of train.csv without a picture",
        "358 picture files that no row names",
    ]


def test_clothing_strict_is_an_error(run_here) -> None:
    process = run_here("compete", archive("clothing-blind.zip"), "--strict", "--dry-run")
    assert process.returncode == 2
    assert "`--strict` allows nothing to be left out, and 2 things would be" in process.stderr
