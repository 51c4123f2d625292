"""How much training fits into a time: measured on some steps, then epochs, size of pictures and width are chosen."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from apps.batches import training_batches
from apps.console import Console, duration
from apps.data import Data
from apps.heads import in_keras_names
from apps.network import build_network, compile_network, network_alone
from apps.phases import phases, scaled, steps_of
from apps.recipe import Recipe
from apps.recipes import Choices
from kerascnn.export import Classifier
from pipelines.decode import decode_picture, resize
from pipelines.stream import read_batches

MINUTES = 20.0  # what a run takes at most where nobody says how long it may take, nor how many epochs
EXPORT, EXPORTED = 15.0, 4.0  # seconds: another process that checks the SavedModel; writing each of its networks
PREDICTED = 128  # pictures of one measured prediction
FEWEST_EPOCHS = 2
OF_FORM = ("model", "stem", "image_size", "width")  # what makes a form of the network
# Smaller and larger forms of what suits the data: (factor of the sides, factor of the width).
FORMS = ((0.5, 1.0), (0.75, 1.0), (1.0, 1.0), (1.0, 1.4), (1.25, 1.4))
FEWEST, MORE = 0.6, 1.5  # times the epochs that suit the data: what a smaller, and a larger form must leave
MOST = 4  # times these epochs: more do not help


@dataclass(frozen=True)
class Workload:
    """What a run has to do.

    Attributes:
        trained: For every network, how many pictures it is trained on.
        held_out: For every network, how many pictures watch it.
        hidden: How many pictures are predicted at the end, by all networks.
        snapshots: How many networks every training yields.
    """

    trained: Sequence[int]
    held_out: Sequence[int]
    hidden: int
    snapshots: int = 1

    @classmethod
    def of(cls, recipe: Recipe, pictures: int, hidden: int) -> "Workload":
        """As the recipe's `val` will split the pictures; about, where a file or a folder says how."""
        val = recipe.val
        if isinstance(val, float | int) and val >= 2:
            networks, held_out = int(val), pictures // int(val)
        else:
            networks, held_out = 1, round(pictures * (0.1 if val is None or isinstance(val, str) else val))
        networks *= recipe.seeds
        return cls([pictures - held_out] * networks, [held_out] * networks, hidden, recipe.snapshots)


@dataclass(frozen=True)
class Speed:
    """Seconds on this machine: of the first step, of a step by size of the pictures, of predicting a picture."""

    first_step: float
    step: Mapping[tuple[int, int] | None, float]
    prediction: float

    def of_training(self, recipe: Recipe, work: Workload) -> float:
        """All networks, with their validation after every epoch, which is forward only: a third of a step."""
        total = self.first_step * len(self.step) * len(work.trained)
        for phase in phases(recipe):
            epochs = phase.epochs[1] - phase.epochs[0]
            total += epochs * self.step[phase.size] * sum(steps_of(recipe, phase, count) for count in work.trained)
        return total + recipe.epochs * self.step[None] * sum(work.held_out) / recipe.batch_size / 3

    def of_the_rest(self, work: Workload) -> float:
        """After the training: held-out pictures, hidden ones for the submission, and again by the exported model."""
        networks = len(work.trained) * work.snapshots
        predicted = work.snapshots * sum(work.held_out) + 2 * work.hidden * networks
        return EXPORT + EXPORTED * networks + self.prediction * predicted


def measure_speed(recipe: Recipe, data: Data, steps: int = 5) -> Speed:
    """Some real steps, and a real prediction; medians, after what compiles them."""
    recipe, data = in_keras_names(recipe, data)
    model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
    compile_network(model, recipe, data.num_classes, steps)
    speeds, first = {}, []
    sizes = [scaled(recipe.image_size, scale) for scale, _ in recipe.scales]
    for size in [*(size for size in sizes if size != recipe.image_size), None]:
        model.make_train_function(force=True)
        batches = iter(training_batches(recipe, data, np.arange(len(data.pictures)), size=size))
        seconds = [_timed(lambda: model.train_on_batch(*next(batches))) for _ in range(steps + 2)]  # noqa: B023
        first.append(seconds[0] + seconds[1])  # these compile and warm up
        speeds[size] = float(np.median(seconds[2:]))
    network = network_alone(build_network(recipe, data, "float32"))
    some = next(iter(read_batches(data.pictures, PREDICTED)))
    if keras.backend.backend() == "tensorflow":
        classifier = Classifier([network], recipe.image_size, decode_picture, resize, recipe.flip, recipe.views)
        predict, views = classifier.predict_pixels, 1
    else:  # the network that answers later is TensorFlow's: this one tells about how long it takes
        predict, views = network.predict_on_batch, (1 + recipe.flip) * (3 if recipe.views else 1)
    predict(some)
    return Speed(max(first), speeds, views * _timed(lambda: predict(some)) / len(some))


def random_data(recipe: Recipe, classes: Mapping[str, Sequence[str]]) -> Data:
    """Two batches of noise, which take as long as pictures do, before any picture is decoded."""
    generator, count = np.random.default_rng(0), max(2 * recipe.batch_size, PREDICTED)
    pictures = generator.integers(0, 256, (count, *recipe.image_size, 3), "uint8")
    labels = {head: generator.integers(0, len(names), count, "int32") for head, names in classes.items()}
    return Data(pictures, labels, classes)


def _timed(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def suit_time(
    choices: Choices,
    settle: Callable[[Choices], Recipe],
    seconds: float,
    work: Workload,
    classes: Mapping[str, Sequence[str]],
    console: Console,
    fill: bool = True,
) -> tuple[Recipe, float]:
    """The recipe whose training ends after `seconds`, with predictions and export, and the seconds of these two.

    Chosen is the largest of some forms (`FORMS`) of what suits the data that leaves enough epochs; fields that
    `choices` settles stay.

    Args:
        choices: Fields that are settled.
        settle: `resolve` for the data, which gives a complete recipe.
        seconds: For all that is still to do.
        work: What that is.
        classes: Class names by head.
        console: Says what was chosen.
        fill: Also take larger forms and more epochs than suit the data, to use the time; else only less.

    Raises:
        ValueError: Not even two epochs of the smallest form fit.
    """
    suited = settle(choices)
    speed = measure_speed(suited, random_data(suited, classes))
    enough = speed.of_training(suited, work) + speed.of_the_rest(work) <= seconds
    if "epochs" in choices or (enough and not fill):
        return suited, speed.of_the_rest(work)
    fitting = _epochs_within(seconds, suited, speed, work)
    forms = [form for form in _forms(choices, suited, settle) if fill or _cost(form) <= _cost(suited)]
    roomy = [
        form
        for form in forms
        if fitting * _cost(suited) / _cost(form) >= suited.epochs * (MORE if _cost(form) > _cost(suited) else FEWEST)
    ]
    chosen = max(roomy, key=_cost) if roomy else min(forms, key=_cost)
    if chosen != suited:
        speed = measure_speed(chosen, random_data(chosen, classes))
        fitting = _epochs_within(seconds, chosen, speed, work)
    fewest = max(FEWEST_EPOCHS, chosen.snapshots)
    if fitting < fewest and fill:
        least = _fixed(speed, work) + fewest * _epoch(chosen, speed, work)
        raise ValueError(
            f"{duration(seconds)} are too few to train on {sum(work.trained):,} pictures here: {fewest} epochs take "
            f"about {duration(least)}. Give it more `--minutes`, or settle a smaller `image_size` or `width`."
        )
    most = MOST * suited.epochs if fill else suited.epochs
    fields: dict[str, object] = {"epochs": min(max(int(fitting), fewest), most)}
    fields |= {name: getattr(chosen, name) for name in OF_FORM} if chosen != suited else {}
    # An accuracy that is best by chance while the rate is high must not end a training that has its time.
    fields |= {"patience": 0} if fill and "patience" not in choices else {}
    recipe = settle({**choices, **fields})
    needed = speed.of_training(recipe, work) + speed.of_the_rest(work)
    console.say(
        f"time      {recipe.epochs} epochs at {recipe.image_size[0]}x{recipe.image_size[1]}, width {recipe.width:g}, "
        f"fit into {duration(seconds)}: about {duration(needed)} (measured on a few steps)"
    )
    return recipe, speed.of_the_rest(work)


def can_be_paced(recipe: Recipe) -> bool:
    """Whether the clock may change the number of epochs while it trains (`callbacks.Deadline`).

    Not where every bit must be repeatable, and not where epochs differ or their number is part of the recipe.
    """
    alike = not recipe.scales and recipe.hardest == 1
    return alike and not recipe.deterministic and recipe.snapshots == 1 and recipe.average != "swa"


def _epochs_within(seconds: float, recipe: Recipe, speed: Speed, work: Workload) -> float:
    return max(seconds - _fixed(speed, work), 0.0) / _epoch(recipe, speed, work)


def _fixed(speed: Speed, work: Workload) -> float:
    """Seconds of what does not depend on the number of epochs: compiling, predicting, exporting."""
    return speed.of_the_rest(work) + speed.first_step * len(speed.step) * len(work.trained)


def _epoch(recipe: Recipe, speed: Speed, work: Workload) -> float:
    """Seconds of an epoch of all networks, the mean over the training."""
    return (speed.of_training(recipe, work) + speed.of_the_rest(work) - _fixed(speed, work)) / recipe.epochs


def _cost(recipe: Recipe) -> float:
    """How long a step takes compared to other forms: by pixels and the square of the width."""
    return math.prod(recipe.image_size) * recipe.width**2


def _forms(choices: Choices, suited: Recipe, settle: Callable[[Choices], Recipe]) -> list[Recipe]:
    """What suits the data, smaller and larger, as far as `choices` leaves size and width open; of the same network."""
    found = [suited]
    for sides, width in FORMS:
        size = tuple(max(16, 8 * round(sides * side / 8)) if sides != 1 else side for side in suited.image_size)
        fields = {"model": suited.model, "stem": suited.stem, "image_size": size, "width": suited.width * width}
        settled = [name for name in ("image_size", "width") if name in choices]
        if all(fields[name] == getattr(suited, name) for name in settled):
            found.append(settle({**choices, **fields}))
    return found
