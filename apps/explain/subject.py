"""What `kerascnn explain` is to look at: a finished run or a .keras file, and the pictures that go with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

import kerascnn  # noqa: F401  (files of networks have layers of this package)
import pipelines
from apps.committee import read_kept
from apps.explain.network import Network, open_network
from apps.finished_run import FinishedRun, Validation, read_run
from apps.predict import Item
from kerascnn.imagenet import PUBLISHED
from kerascnn.registry import list_models
from pipelines.competition import encoded_pictures
from pipelines.encoded import Encoded
from pipelines.labels import MISSING
from pipelines.pictures import choose_size, load_pictures, picture_sizes

MOST_BYTES = 1 << 28  # of validation pictures in memory


@dataclass(frozen=True)
class Subject:
    """What is looked at.

    Attributes:
        name: Of the run or the file.
        network: Its network, the first one of several.
        networks: How many answer together in the run.
        run: None for a .keras file.
    """

    name: str
    network: Network
    networks: int = 1
    run: FinishedRun | None = None


@dataclass(frozen=True)
class Pictures:
    """Pictures as the network takes them.

    Attributes:
        pixels: uint8 [N, height, width, channels].
        names: Of each.
        truth: Class numbers [N] by head, -1 where they are not known; empty where nothing is known.
    """

    pixels: np.ndarray
    names: list[str]
    truth: Mapping[str, np.ndarray]

    def chosen(self, places: np.ndarray) -> "Pictures":
        """Some of them."""
        truth = {head: numbers[places] for head, numbers in self.truth.items()}
        return Pictures(self.pixels[places], [self.names[place] for place in places], truth)


def open_subject(source: str, size: tuple[int, int] | None, items: Sequence[Item] = ()) -> Subject:
    """Load what `source` names.

    Args:
        source: The folder of a finished run, or a .keras file.
        size: (height, width) of the pictures for a network of every size; None for that of the run or of `items`.
        items: The pictures that are asked for.

    Raises:
        ValueError, FileNotFoundError: It is something else, unfinished or damaged.
    """
    path = Path(source)
    if path.is_file() and path.suffix == ".keras":
        return _open_file(path, size, items)
    if path.is_dir() and not _holds_saved_model(path):
        run, kept = read_run(path), read_kept(path)
        committee, heads = kept.committee, kept.committee.names
        network = open_network(
            committee.models[0], run.classes, size or committee.image_size, heads, committee.temperatures
        )
        return Subject(path.resolve().name, network, len(committee.models), run)
    raise _refusal(source, path)


def _open_file(path: Path, size: tuple[int, int] | None, items: Sequence[Item]) -> Subject:
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if size is None and items and None in model.input_shape[1:3]:
        size = choose_size(picture_sizes(Encoded.files([item.path for item in items if item.path is not None])))
    return Subject(path.name, open_network(model, size=size))


def _holds_saved_model(path: Path) -> bool:
    return any(next(path.glob(pattern), None) for pattern in ("saved_model.pb", "*/saved_model.pb"))


def _refusal(source: str, path: Path) -> Exception:
    expected = "Name the folder of a finished run, such as runs/digits, or a .keras file"
    if path.is_dir():
        return ValueError(
            f"{source} is a SavedModel, a finished graph whose layers cannot be looked at. {expected}: that of the run "
            "that wrote it, or its model.keras."
        )
    if path.exists():
        return ValueError(f"{source} is neither a run nor a .keras file. {expected}.")
    if source in list_models():
        build = f"kerascnn.build({source!r}, (224, 224, 3), 1000)"
        published = f": kerascnn.load_imagenet({build}).save('{source}.keras') in Python" if source in PUBLISHED else ""
        return ValueError(
            f"{source} is a network without weights, where there is nothing to see. {expected}{published}."
        )
    return FileNotFoundError(f"There is no file or folder {source}. {expected}.")


def given_pictures(items: Sequence[Item], network: Network) -> tuple[Pictures, dict[str, str]]:
    """The pictures that were asked for, decoded as in training, and {name: reason} of those that cannot be read."""
    failed = {item.id: "the list names no file of this name" for item in items if item.path is None}
    found = [(item.id, item.path) for item in items if item.path is not None]
    pixels, errors = load_pictures(Encoded.files([path for _, path in found]), network.size)
    failed |= {found[place][0]: reason for place, reason in errors.items()}
    kept = [place for place in range(len(found)) if place not in errors]
    return Pictures(_in_channels(pixels[kept], network), [found[place][0] for place in kept], {}), failed


def validation_pictures(run: FinishedRun, network: Network, alone: bool = True) -> tuple[Pictures, Validation]:
    """Pictures that were held out when a run's first network was trained, and the answers to them; of many, some.

    Only those that can be read; with several folds only those of the first.

    Args:
        run: Whose.
        network: Its first network.
        alone: Whether this is the run's only network, whose answers the run has; else it is asked.

    Raises:
        ValueError, FileNotFoundError, OSError: Nothing was held out, or the data cannot be reached any more.
    """
    if run.validation is None:
        raise ValueError(f"{run.folder} held nothing out")
    competition = pipelines.open_dataset(run.record["data"], **run.record["columns"])
    places = {name: place for place, name in reversed([*enumerate(competition.train["id"])])}
    of_network = zip(run.validation.ids, run.validation.fold == 1, strict=True)
    known = np.array([place for place, (name, own) in enumerate(of_network) if own and name in places], int)
    known = known[:: max(1, -(-len(known) * network.size[0] * network.size[1] * 3 // MOST_BYTES))]
    if not len(known):
        raise ValueError(f"{run.record['data']} has none of the pictures that {run.folder} held out")
    rows = np.array([places[run.validation.ids[place]] for place in known])
    pixels, errors = load_pictures(encoded_pictures(competition.train)[rows], network.size)
    kept = np.delete(np.arange(len(known)), list(errors))
    if not len(kept):
        raise ValueError(f"the held-out pictures cannot be read: {next(iter(errors.values()))}")
    said, shown = _some_of(run.validation, known[kept]), _in_channels(pixels[kept], network)
    if not alone:
        answers = network.probabilities(shown)
        said = replace(
            said,
            answer={head: values.argmax(axis=1) for head, values in answers.items()},
            confidence={head: values.max(axis=1) for head, values in answers.items()},
            probabilities=answers,
        )
    return Pictures(shown, said.ids.tolist(), said.truth), said


def telling(said: Validation, count: int) -> np.ndarray:
    """Places of pictures worth a look: the most confident mistakes, as half of them at most, then typical ones.

    Typical are those answered rightly with the most confidence, of every class in turn. Of several heads, the one whose
    answer is the most confident counts.
    """
    head = max(said.truth, key=lambda name: float(np.mean(said.truth[name] != MISSING)))
    truth, answer, confidence = said.truth[head], said.answer[head], said.confidence[head]
    order = np.argsort(-confidence, kind="stable")
    wrong = [
        place
        for place in np.argsort(-_confidence_in_mistakes(said), kind="stable")
        if any((said.truth[name][place] not in (MISSING, said.answer[name][place])) for name in said.truth)
    ]
    ranks: dict[int, int] = {}
    typical = []
    for place in order:
        if truth[place] == answer[place]:
            ranks[truth[place]] = ranks.get(truth[place], -1) + 1
            typical.append((ranks[truth[place]], truth[place], place))
    right = [place for *_, place in sorted(typical)]
    mistakes = wrong[: count - min(len(right), count // 2)]
    shown = [*mistakes, *(place for place in right if place not in mistakes)]
    return np.array([*shown, *(place for place in order if place not in shown)][:count], int)


def _confidence_in_mistakes(said: Validation) -> np.ndarray:
    """The largest confidence with which a head is wrong, 0 where none is."""
    wrong = [
        np.where((said.truth[head] != said.answer[head]) & (said.truth[head] != MISSING), said.confidence[head], 0.0)
        for head in said.truth
    ]
    return np.max(wrong, axis=0)


def _some_of(said: Validation, places: np.ndarray) -> Validation:
    def pick(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {head: one[places] for head, one in values.items()}

    probabilities = None if said.probabilities is None else pick(said.probabilities)
    return Validation(
        said.ids[places], said.fold[places], pick(said.truth), pick(said.answer), pick(said.confidence), probabilities
    )


def page_of(source: str) -> Path:
    """Where the page of a run or a .keras file goes, if nothing else is said."""
    path = Path(source)
    return path / "explain.html" if path.is_dir() else path.with_name(f"{path.stem}-explain.html")


def _in_channels(pixels: np.ndarray, network: Network) -> np.ndarray:
    """The mean of the colours for a network of grey pictures."""
    return pixels if network.channels == 3 else np.round(pixels.mean(axis=-1, keepdims=True)).astype("uint8")
