"""`kerascnn export`: a finished run exported again, and how every export is checked before it gets its name."""

import difflib
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import pipelines
from apps import files, run_folder
from apps.committee import Committee, Kept, read_kept
from apps.console import Console
from apps.startup import silent
from apps.submission import LARGEST_DIFFERENCE, predict_pictures, verify
from kerascnn.export import Classifier, export_model, new_version
from kerascnn.export_formats import FORMATS, SAVED_MODEL, answering_model, check_format, write_format
from kerascnn.grad_cam import with_maps
from kerascnn.precision import PRECISIONS
from pipelines.competition import encoded_pictures
from pipelines.decode import decode_picture
from pipelines.encoded import Encoded
from pipelines.pictures import load_pictures

CHECKED = 100  # pictures that check an export
FIRST_DIFFERENCE = 0.01  # of a probability, to the run's first export, which another kind of processor may have made
# bfloat16 keeps 8 bits of every number: how much of a probability that may cost, and how many answers.
BFLOAT16_DIFFERENCE, BFLOAT16_AGREEING = 0.1, 0.98
FOLDED_ON = 4  # pictures by which a network with its BatchNorm folded is compared with itself
CLASSES_FILE = "kerascnn.json"  # beside the files of other formats, what a SavedModel has in its assets.extra


class Checked(NamedTuple):
    """Pictures that check an export: encoded, as uint8 [N, height, width, 3], and what to call them."""

    encoded: Encoded
    pixels: np.ndarray
    name: str


def publish(
    classifier: Classifier,
    model_folder: Path,
    metadata: Mapping[str, Any],
    canary: Sequence[bytes],
    checked: Encoded,
    expected: Mapping[str, np.ndarray],
    explain: bool,
    console: Console,
    tolerance: float = LARGEST_DIFFERENCE,
) -> Path:
    """Export the next version, check it in a separate process, and only then give it its name; its folder.

    Args:
        classifier: What to export.
        model_folder: saved_models/NAME.
        metadata: For `export_model`.
        canary: Encoded pictures that go with it.
        checked: Where pictures lie that the exported model must answer like the one in memory.
        expected: Their probabilities [N, classes] by head.
        explain: Whether heat maps are wanted; a network that has none is exported without, with a warning.
        console: For the warning.
        tolerance: Of a probability.

    Raises:
        ValueError: The folder holds models of another format.
        RuntimeError: The exported model fails or disagrees; nothing is published.
    """
    refuse_other_formats(model_folder, SAVED_MODEL)
    if explain:
        try:
            with_maps(classifier.models[0])
        except ValueError as error:
            console.warn(f"Exported without heat maps. {error}")
            explain = False
    with new_version(model_folder) as (unfinished, published):
        export_model(classifier, unfinished, metadata, canary, explain)
        verify(unfinished, checked, expected, metadata["classes"], tolerance)
    return published


def export(
    run: Path,
    *,
    format: str = SAVED_MODEL,
    precision: str = "float32",
    explain: bool = True,
    out: Path | None = None,
    name: str | None = None,
    console: Console | None = None,
) -> Path:
    """Export a finished run again, as the next version; returns its folder.

    Args:
        run: The run folder.
        format: "saved_model", "onnx", "openvino" or "litert".
        precision: "float32", or "bfloat16" for a SavedModel that computes in it; its answers stay float32.
        explain: Whether a SavedModel has the signature `explain`.
        out: Where NAME/VERSION goes; None takes the folder of the run's first export, or FORMAT_models: servers of
            SavedModels expect nothing else in theirs.
        name: Of the model; None takes that of the run's first export.
        console: Shows what happens; None prints.

    Raises:
        ValueError, FileNotFoundError: The run or the choices do not fit; nothing is written.
        RuntimeError: What was exported disagrees with the trained networks; nothing is published.
    """
    console = console or Console()
    check_format(format)
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}. Received: {precision!r}.")
    if format != SAVED_MODEL and precision != "float32":
        raise ValueError(f"`--precision {precision}` is for SavedModels; the format {format} is written in float32.")
    if name is not None and (not name or Path(name).name != name):
        raise ValueError(f"`--name` must be one part of a path, such as digits. Received: {name!r}.")
    record, result = require_finished(run)
    parent = out or Path(record["saved_models"] if format == SAVED_MODEL else f"{format}_models")
    folder = parent / (name or Path(result["saved_model"]).parent.name)
    refuse_other_formats(folder, format)
    files.require_writable(folder)
    kept = read_kept(run)
    kept.metadata["name"] = folder.name
    with tempfile.TemporaryDirectory() as copies:
        checked = find_pictures(record, kept, Path(copies), console)
        committee = kept.committee.folded(checked.pixels[:FOLDED_ON], console)
        require_first_answers(kept, committee)
        if format == SAVED_MODEL:
            published = export_saved_model(kept, committee, checked, folder, precision, explain, console)
            how = "in a separate process it gave"
        else:
            published = export_other(kept, committee, checked, folder, format)
            how = "its own runtime gave"
    same = "the answers of the trained networks" if precision == "float32" else "the same answers"
    console.say(f"wrote     {published}; {how} {same} for {len(checked.pixels):,} {checked.name}")
    return published


def export_saved_model(
    kept: Kept,
    committee: Committee,
    checked: Checked,
    folder: Path,
    precision: str,
    explain: bool,
    console: Console,
) -> Path:
    """A SavedModel of a kept run; in bfloat16 only where that answers nearly as float32 does."""
    classifier, tolerance = committee.classifier(), LARGEST_DIFFERENCE
    expected = predict_pictures(classifier, checked.pixels)
    if precision == "bfloat16":
        classifier, tolerance = committee.in_bfloat16().classifier(), BFLOAT16_DIFFERENCE
        rounded = predict_pictures(classifier, checked.pixels)
        console.say(f"bfloat16  {require_close(expected, rounded, checked)}")
        expected = rounded
    return publish(
        classifier, folder, kept.metadata, kept.canary, checked.encoded, expected, explain, console, tolerance
    )


def require_close(expected: Mapping[str, np.ndarray], rounded: Mapping[str, np.ndarray], checked: Checked) -> str:
    """How close answers in bfloat16 are to those in float32, both [N, classes] by head, in words.

    Raises:
        RuntimeError: They are not close enough.
    """
    agreeing = min(float((rounded[head].argmax(1) == expected[head].argmax(1)).mean()) for head in expected)
    gap = largest_gap(rounded, expected)
    figures = (
        f"{agreeing:.1%} of the answers for {len(checked.pixels):,} {checked.name} are those of float32 "
        f"(at least {BFLOAT16_AGREEING:.0%} must be), probabilities differ by up to {gap:.1e} ({BFLOAT16_DIFFERENCE:g})"
    )
    if not (agreeing >= BFLOAT16_AGREEING and gap <= BFLOAT16_DIFFERENCE):
        raise RuntimeError(f"bfloat16 is too coarse for these networks, nothing was published: {figures}")
    return figures


def export_other(kept: Kept, committee: Committee, checked: Checked, folder: Path, format: str) -> Path:
    """The next version in another format, reloaded by its own runtime and compared before it gets its name.

    Raises:
        RuntimeError: An answer differs; nothing is published.
    """
    expected = predict_pictures(committee.classifier(), checked.pixels)
    with new_version(folder) as (unfinished, published):
        with silent():
            model = answering_model(
                committee.models,
                committee.image_size,
                committee.mirror,
                committee.shift,
                committee.names,
                committee.weights,
                committee.temperatures,
            )
            answers = FORMATS[format].run(write_format(model, format, unfinished), checked.pixels)
        if not (gap := largest_gap(answers, expected)) <= LARGEST_DIFFERENCE:
            raise RuntimeError(
                "the exported model disagrees with the trained one, nothing was published: probabilities differ by up "
                f"to {gap:.1e}"
            )
        files.write_json(unfinished / CLASSES_FILE, {**kept.metadata, "format": format})
    return published


def largest_gap(answers: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest difference of any probability, [N, classes] by head."""
    return max(float(np.abs(answers[head] - expected[head]).max()) for head in expected)


def require_first_answers(kept: Kept, committee: Committee) -> None:
    """Raise a `RuntimeError` unless the networks answer the canary pictures as the first export did."""
    pixels = decode_all(kept.canary, committee.image_size)
    gap = largest_gap(predict_pictures(committee.classifier(), pixels), kept.answers) if len(pixels) else 0.0
    if not gap <= FIRST_DIFFERENCE:
        raise RuntimeError(
            "the networks of the run do not answer as its first export does, nothing was published: probabilities of "
            f"the canary pictures differ by up to {gap:.1e}"
        )


def require_finished(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What recipe.json and result.json of a finished run say.

    Raises:
        FileNotFoundError: It is no run folder.
        ValueError: The run has not ended yet, or a file is damaged.
    """
    if not (run / "recipe.json").is_file():
        others = {path.parent for parent in (run.parent, Path("runs")) for path in parent.glob("*/recipe.json")}
        near = difflib.get_close_matches(run.name, sorted({path.name for path in others}), n=1, cutoff=0.5)
        meant = "".join(f" Did you mean {path}?" for path in sorted(others) if path.name in near)
        raise FileNotFoundError(f"{run} is no run folder: it has no recipe.json.{meant}")
    record = run_folder.read_record(run)
    if not (run / "result.json").is_file():
        again = shlex.join(["kerascnn", "compete", record["data"], "--resume", "--out", str(run)])
        raise ValueError(f"{run} is not finished: there is nothing to export yet. Go on with: {again}")
    try:
        return record, json.loads((run / "result.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{run / 'result.json'} is damaged: {error}.") from error


def refuse_other_formats(folder: Path, format: str) -> None:
    """Raise a `ValueError` where a model's folder has versions in another format: what serves it expects one."""
    own = FORMATS[format].file if format in FORMATS else "saved_model.pb"
    others = {"saved_model.pb", *(one.file for one in FORMATS.values())} - {own}
    if found := [name for name in sorted(others) if any(folder.glob(f"*/{name}"))]:
        raise ValueError(f"{folder} has versions of another format ({found[0]}). Choose another `--out` or `--name`.")


def find_pictures(record: Mapping[str, Any], kept: Kept, copies: Path, console: Console) -> Checked:
    """Pictures of the run's data where these can still be read, else its canary pictures, as files in `copies`.

    Raises:
        ValueError: There is none of either.
    """
    size = kept.committee.image_size
    try:
        competition = pipelines.open_dataset(record["data"], **record["columns"])
        encoded = encoded_pictures(competition.train)
        encoded = encoded[encoded.readable(CHECKED)]
        pixels, errors = load_pictures(encoded, size)
        good = np.delete(np.arange(len(encoded)), list(errors))
        if len(good):
            return Checked(encoded[good], pixels[good], "pictures of its data")
        reason = f"none of the pictures in {record['data']} can be read"
    except (ValueError, OSError) as error:
        reason = str(error)
    if not kept.canary:
        raise ValueError(f"There is no picture to check the export with: {reason}")
    console.warn(f"Only the {len(kept.canary)} canary pictures of the run check this export: {reason}")
    paths = [copies / f"{place}" for place in range(len(kept.canary))]
    for path, data in zip(paths, kept.canary, strict=True):
        path.write_bytes(data)
    return Checked(Encoded.files(paths), decode_all(kept.canary, size), "canary pictures")


def decode_all(encoded: Sequence[bytes], size: tuple[int, int]) -> np.ndarray:
    """Encoded pictures as uint8 [N, height, width, 3]."""
    pictures = [decode_picture(tf.constant(data), size).numpy() for data in encoded]
    return np.array(pictures, "uint8").reshape(-1, *size, 3)


if __name__ == "__main__":
    from apps.cli import main

    main(["export", *sys.argv[1:]])
