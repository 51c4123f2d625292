"""`open_dataset`: from what a user typed (a name, a folder, an archive) to a `Competition`."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipelines.arrays import read_arrays
from pipelines.competition import Competition, read_class_folders, read_csv_competition
from pipelines.records import FORMAT, has_index, is_begun, read_records

EXPECTED = (
    "Expected `digits`, `tfds:NAME`, a folder with train.csv and pictures, a folder with one sub-folder per class, "
    "a folder of TFRecord shards, an .npz file, or a .zip of one of these"
)


def open_dataset(
    data: str | os.PathLike[str],
    *,
    targets: Sequence[str] | None = None,
    group: str | None = None,
    id_column: str | None = None,
) -> Competition:
    """Find the labelled and the hidden pictures of `data` without decoding any.

    Args:
        data: `digits`, `tfds:NAME`, a folder with train.csv (and test.csv), a folder of class folders (optionally
            below train/, val/, test/), a folder of TFRecord shards, an .npz with x_train, y_train and optionally
            x_test, or a .zip of any of these.
        targets: Columns to predict; None works them out.
        group: Column whose values must not be split between training and validation.
        id_column: Column that names the picture; None finds it.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: It is none of these, or its tables do not fit together.
    """
    if str(data) == "digits":
        return read_csv_competition(digits_folder(), "digits", targets, group, id_column)
    name = dataset_name(data)
    if str(data).startswith("tfds:"):
        return read_records(_tfds_folder(str(data).removeprefix("tfds:")), name, targets, group, id_column)
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}. {EXPECTED}.")
    if path.suffix.lower() == ".zip":
        path = _unpack(path)
    if path.suffix.lower() == ".npz":
        path = _lay_out(path)
    if not path.is_dir():
        raise ValueError(f"{path} is not a data set. {EXPECTED}.")
    path = _inner_folder(path)
    if (path / "train.csv").is_file():
        return read_csv_competition(path, name, targets, group, id_column)
    if arrays := sorted(path.glob("*.npz")):
        return read_csv_competition(_lay_out(arrays[0]), name, targets, group, id_column)
    if is_begun(path):
        raise ValueError(f"Writing shards into {path} was begun and not finished. Call `kerascnn records` again.")
    if has_index(path):
        return read_records(path, name, targets, group, id_column)
    if shards := sorted(file for file in path.glob("*.tfrec*") if file.is_file()):
        return read_records(_indexed(shards, targets, group, id_column), name, targets, group, id_column, path)
    if group or id_column or (targets and list(targets) != ["label"]):
        raise ValueError(f"`--target`, `--group` and `--id` name columns of a train.csv, and {path} has none.")
    return read_class_folders(path, name)


def dataset_name(data: str | os.PathLike[str]) -> str:
    """The short name of a data set: its file or folder without path and extension.

    >>> dataset_name("data/pets.zip"), dataset_name("tfds:oxford_iiit_pet:3.*.*"), dataset_name("tfds:glue/mnli")
    ('pets', 'oxford_iiit_pet', 'glue-mnli')
    """
    if str(data).startswith("tfds:"):
        return str(data).split(":")[1].replace("/", "-")
    path = Path(data).resolve()
    return path.stem if path.suffix.lower() in (".zip", ".npz") else path.name


def cache_folder() -> Path:
    """Where unpacked archives and the digits are kept: $KERASCNN_CACHE, or kerascnn in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kerascnn"
    return Path(os.environ.get("KERASCNN_CACHE") or default)


def digits_folder() -> Path:
    """scikit-learn's 1,797 handwritten digits (8x8) as a competition: 1,437 to train on, 360 hidden."""
    with _made_once(cache_folder() / "digits-1") as folder:
        if folder:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split

            digits = load_digits()
            pictures = np.round(digits.images * (255 / 16)).astype("uint8")
            train, test = train_test_split(
                np.arange(len(pictures)), test_size=0.2, random_state=0, stratify=digits.target
            )
            labels = digits.target.astype(str)
            write_competition(folder, pictures[train], labels[train], pictures[test], labels[test])
    return cache_folder() / "digits-1"


def write_competition(
    folder: Path,
    train_pictures: np.ndarray,
    train_labels: np.ndarray,
    test_pictures: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
) -> None:
    """Lay uint8 pictures [N, height, width(, 3)] out as PNG files with train.csv, test.csv and answers.csv."""
    for part, pictures, labels in (("train", train_pictures, train_labels), ("test", test_pictures, test_labels)):
        if pictures is None:
            continue
        (folder / part).mkdir(parents=True)
        names = [f"{part}/{index:05d}.png" for index in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            Image.fromarray(picture).save(folder / name)
        table = pd.DataFrame({"image": names})
        if labels is not None:
            table["label"] = labels
            table.to_csv(folder / ("train.csv" if part == "train" else "answers.csv"), index=False)
        if part == "test":
            table[["image"]].to_csv(folder / "test.csv", index=False)


def _unpack(archive: Path) -> Path:
    """Unpack a .zip once; a changed archive is unpacked anew."""
    with _made_once(_folder_for(archive)) as folder:
        if folder:
            try:
                with zipfile.ZipFile(archive) as members:
                    members.extractall(folder)
            except (zipfile.BadZipFile, EOFError) as error:
                raise ValueError(f"{archive} is not a complete .zip file: {error}.") from error
    return _folder_for(archive)


def _lay_out(archive: Path) -> Path:
    """Lay the arrays of an .npz out as a competition once; a changed file anew."""
    with _made_once(_folder_for(archive)) as folder:
        if folder:
            write_competition(folder, *read_arrays(archive))
    return _folder_for(archive)


def _indexed(shards: Sequence[Path], targets: Sequence[str] | None, group: str | None, id_column: str | None) -> Path:
    """The folder in the cache that holds the index of shards another program wrote; a changed shard is read anew."""
    from pipelines.foreign_records import index_shards

    states = [(os.fspath(shard.resolve()), shard.stat().st_size, shard.stat().st_mtime_ns) for shard in shards]
    state = (FORMAT, states, targets and list(targets), group, id_column)
    key = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
    target = cache_folder() / f"{shards[0].parent.resolve().name}-index-{key}"
    with _made_once(target) as folder:
        if folder:
            index_shards(shards, folder, targets, group, id_column)
    return target


def _tfds_folder(name: str) -> Path:
    """The folder in the cache that holds a data set of TensorFlow Datasets as shards."""
    from pipelines.tfds_source import copy_tfds, prepared_builder

    builder = prepared_builder(name)
    described = Path(builder.data_dir, "dataset_info.json")  # written anew when the data are
    name = f"tfds-{builder.info.full_name.replace('/', '-')}"
    target = _folder_for(described, name) if described.is_file() else cache_folder() / name
    with _made_once(target) as folder:
        if folder:
            copy_tfds(builder, folder)
    return target


def _folder_for(archive: Path, name: str | None = None) -> Path:
    """The folder in the cache for a file as it is now."""
    state = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()}|{state.st_size}|{state.st_mtime_ns}".encode()).hexdigest()[:12]
    return cache_folder() / f"{name or archive.stem}-{key}"


@contextlib.contextmanager
def _made_once(target: Path) -> Iterator[Path | None]:
    """An empty folder to fill, which then takes the name `target` as a whole; None when `target` is there already."""
    if target.is_dir():
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        with contextlib.suppress(OSError):  # another process was first: its folder is as good
            folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _inner_folder(folder: Path) -> Path:
    """Step into the only sub-folder of an archive that was packed with its folder."""
    while not (folder / "train.csv").is_file():
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir():
            break
        folder = inside[0]
    return folder
