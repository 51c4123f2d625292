"""TensorFlow Datasets as a source: names for labels, hidden test labels, one line when there is no such data set."""

import csv
import http.server
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from pipelines import open_dataset, tfds_source
from pipelines.competition import encoded_pictures
from pipelines.tfds_source import copy_tfds

NAMES = ["daisy", "日本 rose", "0"]
SPLITS = {"train": range(12), "validation": range(12, 15), "test": range(15, 19)}
DAMAGED = 11


def encoded(number: int, kind: str | None = None) -> bytes:
    """The file of a picture: PNG or JPEG, all different; one is damaged."""
    pixels = np.random.default_rng(number).integers(0, 256, (7, 9, 3)).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind or ["PNG", "JPEG"][number % 2])
    return file.getvalue()[:90] if number == DAMAGED else file.getvalue()


def label(number: int) -> str:
    return NAMES[number % 3]


def kids(number: int) -> str:
    return "" if number % 4 == 0 else ["no", "yes"][number % 2]


class LittleFlowers(tfds.core.GeneratorBasedBuilder):
    """Two class labels, one of them not always known, and a mask beside the picture."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "amask": tfds.features.Image(shape=(None, None, 3)),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=NAMES),
            "kids": tfds.features.ClassLabel(names=["no", "yes"]),
            "size": tf.int64,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(numbers) for split, numbers in SPLITS.items()}

    def _generate_examples(self, numbers: range) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in numbers:
            yield (
                number,
                {
                    "amask": io.BytesIO(encoded(100 + number)),
                    "image": io.BytesIO(encoded(number)),
                    "label": label(number),
                    "kids": kids(number) or -1,
                    "size": number,
                },
            )


class OddData(tfds.core.GeneratorBasedBuilder):
    """What a data set may lack, or be called, by its configuration."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=name) for name in ("no_label", "no_train", "label_called_id", "no_test_labels")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        kind = self.builder_config.name
        label_feature = tf.int64 if kind == "no_label" else tfds.features.ClassLabel(names=["a", "b"])
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "id" if kind == "label_called_id" else "label": label_feature,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        first = "everything" if self.builder_config.name == "no_train" else "train"
        return {first: self._generate_examples(range(4)), "test": self._generate_examples(range(4, 6))}

    def _generate_examples(self, numbers: range) -> Iterator[tuple[int, dict[str, Any]]]:
        name = "id" if self.builder_config.name == "label_called_id" else "label"
        for number in numbers:
            unknown = self.builder_config.name == "no_test_labels" and number >= 4
            yield number, {"image": io.BytesIO(encoded(number)), name: -1 if unknown else number % 2}


class FarAway(tfds.core.GeneratorBasedBuilder):
    """A data set that must be downloaded first."""

    VERSION = tfds.core.Version("1.0.0")
    url = ""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        manager.download(self.url)
        return {}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from ()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the data sets above that need no network."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    LittleFlowers(data_dir=folder).download_and_prepare()
    for config in OddData.BUILDER_CONFIGS:
        OddData(config=config.name, data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture
def data_dir(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TensorFlow Datasets looks there, and our cache is empty."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    monkeypatch.setenv("KERASCNN_CACHE", str(tmp_path / "cache"))
    return prepared


def test_class_names_parts_and_pictures_are_those_of_the_data_set(data_dir) -> None:
    data = open_dataset("tfds:little_flowers")
    assert data.name == "little_flowers"
    assert data.classes == {"kids": ["no", "yes"], "label": sorted(NAMES)}
    assert data.columns == ["kids: target, 2 classes", "label: target, 3 classes"]
    assert data.left_out == ["1 picture that cannot be decoded"]
    known = {encoded(number): number for number in range(15)}
    labelled = encoded_pictures(data.train)
    numbers = [known[labelled.read(place)] for place in range(len(labelled))]
    assert sorted(numbers) == [number for number in range(15) if number != DAMAGED]
    assert data.labels["label"].tolist() == [label(number) for number in numbers]
    assert data.labels["kids"].tolist() == [kids(number) for number in numbers]
    assert data.train["part"].tolist() == ["val" if number >= 12 else "train" for number in numbers]
    assert data.train["id"].is_unique


def test_labels_of_the_test_split_are_answers_and_nowhere_else(data_dir) -> None:
    data = open_dataset("tfds:little_flowers")
    known = {encoded(number): number for number in SPLITS["test"]}
    hidden = encoded_pictures(data.test)
    numbers = {name: known[hidden.read(place)] for place, name in enumerate(data.test["id"])}
    assert sorted(numbers.values()) == list(SPLITS["test"])
    assert data.answers()["label"].to_dict() == {name: label(number) for name, number in numbers.items()}
    assert data.answers()["kids"].to_dict() == {name: kids(number) for name, number in numbers.items()}
    shard = data.test["path"][0]
    for record in tf.data.TFRecordDataset(str(shard)):
        assert set(tf.train.Example.FromString(record.numpy()).features.feature) == {"id", "image"}
    with (shard.parent / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    assert [(row["label.label"], row["label.kids"]) for row in rows] == [("", "")] * 4


def test_a_data_set_is_copied_once_and_anew_when_it_was_prepared_anew(data_dir, monkeypatch) -> None:
    copied = []
    monkeypatch.setattr(tfds_source, "copy_tfds", lambda *arguments: (copied.append(1), copy_tfds(*arguments)))
    first, second = open_dataset("tfds:little_flowers"), open_dataset("tfds:little_flowers:1.*.*")
    assert first.train.equals(second.train)
    assert len(copied) == 1
    os.utime(data_dir / "little_flowers" / "1.0.0" / "dataset_info.json", ns=(0, 0))
    assert open_dataset("tfds:little_flowers").train["id"].equals(first.train["id"])
    assert len(copied) == 2


def test_the_folder_of_a_prepared_data_set_opens_without_its_name(data_dir) -> None:
    data = open_dataset(data_dir / "odd_data" / "label_called_id" / "2.0.0", targets=["id"])
    assert (len(data.train), len(data.test)) == (4, 2)
    assert sorted(data.labels["id"]) == ["0", "0", "1", "1"]


def test_a_label_may_be_called_id(data_dir) -> None:
    data = open_dataset("tfds:odd_data/label_called_id")
    assert (data.name, data.targets, data.id_column) == ("odd_data-label_called_id", ("id",), "example")
    assert sorted(data.labels["id"]) == ["a", "a", "b", "b"]
    assert data.answers().index.tolist() == data.test["id"].tolist()
    assert sorted(data.answers()["id"]) == ["a", "b"]


def test_test_pictures_without_labels_have_no_answers(data_dir) -> None:
    data = open_dataset("tfds:odd_data/no_test_labels")
    assert (len(data.test), data.answers) == (2, None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "no_label",
            r"^odd_data/no_label/2\.0\.0 must have one picture and at least one class label [^\n]*Image[^\n]*$",
        ),
        ("no_train", r"^odd_data/no_train/2\.0\.0 has no split named train\. Splits: [^\n]*everything[^\n]*$"),
    ],
)
def test_data_sets_of_another_kind_are_refused_in_one_line(data_dir, config, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(f"tfds:odd_data/{config}")
    assert os.listdir(tmp_path / "cache") == []


def test_a_well_known_data_set_comes_with_its_class_names(tmp_path, monkeypatch) -> None:
    """The real description of MNIST, with pictures that TensorFlow Datasets makes up."""
    monkeypatch.setenv("KERASCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    builder = tfds.builder("mnist", data_dir=tmp_path)
    splits = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[5],
            num_bytes=1,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=builder.data_path, dataset_name="mnist", split=name, filetype_suffix="tfrecord"
            ),
        )
        for name in ("train", "test")
    ]
    builder.info.set_splits(tfds.core.splits.SplitDict(splits))
    Path(builder.data_dir).mkdir(parents=True)
    builder.info.write_to_directory(builder.data_dir)
    with tfds.testing.mock_data(num_examples=5, data_dir=str(tmp_path)):
        data = open_dataset("tfds:mnist")
    assert (len(data.train), len(data.test)) == (5, 5)
    assert set(data.labels["label"]) <= set("0123456789")
    assert data.columns == ["label: target, 10 classes"]
    with Image.open(io.BytesIO(encoded_pictures(data.train).read(0))) as picture:
        assert picture.size == (28, 28)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnistt", r"^TensorFlow Datasets has no 'mnistt'\. Did you mean mnist, [^\n]*\?$"),
        ("oxford_flower102:2.*.*", r"^TensorFlow Datasets has no [^\n]* Did you mean oxford_flowers102[^\n]*\?$"),
        ("qqqqqqqq", r"^TensorFlow Datasets has no 'qqqqqqqq'\.$"),
        ("mnist:99.0.0", r"^tfds:mnist:99\.0\.0 cannot be opened: [^\n]*3\.0\.1[^\n]*$"),
        ("glue/nothing", r"^tfds:glue/nothing cannot be opened: [^\n]*nothing[^\n]*$"),
        ("", r"^tfds: cannot be opened: [^\n]*$"),
        ("../x y", r"^tfds:\.\./x y cannot be opened: [^\n]*$"),
    ],
)
def test_a_name_that_there_is_not_is_an_error_of_one_line(data_dir, name, message) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(f"tfds:{name}")


def test_what_cannot_be_downloaded_is_said_after_few_attempts(tmp_path, monkeypatch) -> None:
    attempts = []

    class Broken(http.server.BaseHTTPRequestHandler):
        """Hangs up; after many attempts, it says that there is nothing."""

        def do_GET(self) -> None:
            attempts.append(self.path)
            if len(attempts) > 8:
                self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(FarAway, "url", f"http://127.0.0.1:{server.server_port}/archive.zip")
        with pytest.raises(
            ValueError, match=r"^tfds:far_away is not in [^\n]* could not be downloaded \([^\n]*\)\. Is "
        ):
            open_dataset("tfds:far_away")
        server.shutdown()
    assert 1 <= len(attempts) <= 5
