"""Training steps and inference of networks in Keras on JAX and in PyTorch, on the same device in the same process.

Imports nothing of TensorFlow, nor what needs it. Many steps are begun before the last is waited for, as in a training;
the batch lies on the device already.
"""

import functools
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

import kerascnn
from apps import bench_pytorch
from apps.bench import Contestant, Figure, measure, print_figures
from apps.bench_jax import Training, inference, jax, on_devices
from apps.bench_networks import INSTALL, OURS, PYTORCH, Case, our_model, pytorch_model
from apps.console import Console
from apps.recipe import NETWORK_OPTIONS
from apps.recipes import RECIPES
from callbacks import NO_DECAY, OneCycleSchedule, ParameterGroup, get_optimizer

RECIPE = "cifar10-fast"
PRECISION = "bfloat16"
Run = Callable[[int], object]  # so many steps, the last one waited for


@dataclass(frozen=True)
class Work:
    """A network, whether the network and the optimiser of `RECIPE` are measured too, and how much is done at a time.

    Attributes:
        case: The network, its pictures and their batch.
        recipe: Whether.
        steps: Begun before the last is waited for.
        seconds: How long a measurement takes.
    """

    case: Case
    recipe: bool = False
    steps: int = 20
    seconds: float = 5.0


RESNET50 = functools.partial(Case, "resnet50", classes=1000, parameters=25_557_032, options={"downsample": "3x3"})
AIRBENCH94 = functools.partial(Case, "airbench94", 32, classes=10, parameters=1_971_328)
ON_ACCELERATOR = (Work(RESNET50(size=224, batch=256)), Work(AIRBENCH94(batch=1024), recipe=True))
# Only to see that it runs.
ON_PROCESSOR = (
    Work(RESNET50(size=64, batch=4), steps=1, seconds=1.0),
    Work(AIRBENCH94(batch=32), recipe=True, steps=1, seconds=1.0),
)


def bench_frameworks(rounds: int, console: Console, works: Sequence[Work] = ()) -> dict[str, list[Figure]]:
    """Pictures a second of both; of ours alone where PyTorch cannot use the same device.

    Args:
        rounds: Measurements of each.
        console: Shows the figures.
        works: What to measure, what suits the device by default.

    Raises:
        ValueError: Keras is not on JAX.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(f"This needs Keras on JAX: set KERAS_BACKEND=jax. Received: {keras.backend.backend()}.")
    device = jax.devices()[0]
    other = pytorch_device(device.platform)
    console.say(f"JAX works on {device.device_kind} ({device.platform})")
    if not bench_pytorch.INSTALLED:
        console.say(INSTALL)
    elif other is None:
        console.say("PyTorch finds no such device: the figures are of kerascnn alone.")
    tables = {}
    for work in works or (ON_PROCESSOR if device.platform == "cpu" else ON_ACCELERATOR):
        case = work.case
        for kind, ours, theirs in (
            ("training step", [our_training, recipe_training], pytorch_training),
            ("inference", [our_inference, recipe_inference], pytorch_inference),
        ):
            names = [OURS, f"{OURS}, {RECIPE}"] if work.recipe else [OURS]
            makes = {name: functools.partial(make, case) for name, make in zip(names, ours, strict=False)}
            if other is not None:
                how, run = compiled_or_eager(functools.partial(theirs, case, other), console)
                makes[f"{PYTORCH}, {how}"] = functools.partial(_as_it_is, run)
            title = (
                f"{case.name}, {case.size}x{case.size}, batch {case.batch}, {PRECISION}, {device.device_kind}: {kind}"
            )
            tables[title] = measure([_contestant(name, make, work) for name, make in makes.items()], rounds)
            print_figures(title, tables[title], console, next((name for name in makes if PYTORCH in name), None))
            del makes
            gc.collect()
    return tables


def our_training(case: Case, model: keras.Model | None = None) -> Run:
    """Steps of our network, by SGD with Nesterov's momentum, or of another model that takes its batches."""
    training = Training(model or our_model(case, PRECISION), case.data())
    batch = on_devices(case.data())
    return lambda steps: training(batch, steps)


def our_inference(case: Case, model: keras.Model | None = None) -> Run:
    """Predictions of our network, or of another model."""
    return inference(model or our_model(case, PRECISION), on_devices(case.data())[0])


def recipe_training(case: Case) -> Run:
    """Steps of the recipe's network by its optimiser."""
    return our_training(case, recipe_model(case))


def recipe_inference(case: Case) -> Run:
    """Predictions of the recipe's network."""
    return our_inference(case, recipe_model(case))


def recipe_model(case: Case) -> keras.Model:
    """The network of `RECIPE`, compiled with its optimiser."""
    recipe = RECIPES[RECIPE]
    options = {name: recipe[name] for name in NETWORK_OPTIONS if name in recipe}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{PRECISION}")
    try:
        model = kerascnn.build(recipe["model"], (case.size, case.size, 3), case.classes, **options)
    finally:
        keras.config.set_dtype_policy(policy)
    model.compile(recipe_optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def recipe_optimizer(steps: int = 1_000) -> keras.optimizers.Optimizer:
    """That of `apps.network.make_optimizer`, which needs TensorFlow; a test compares them."""
    recipe = RECIPES[RECIPE]
    rate = OneCycleSchedule(
        recipe["lr"], steps, warmup=recipe["warmup"], tail=0.0, final_factor=1e-4, curve=recipe["curve"]
    )
    groups = [
        NO_DECAY,
        ParameterGroup(r"(beta|bias)$", rate=recipe["bias_rate"]),
        ParameterGroup("head_.*kernel$", rate=recipe["head_rate"]),
    ]
    options = {"weight_decay": recipe["weight_decay"], "momentum": recipe["momentum"]}
    return get_optimizer(recipe["optimizer"], rate, groups=groups, **options)


def pytorch_device(platform: str) -> str | None:
    """What PyTorch calls a device of JAX; None where it is not installed or cannot use it."""
    device = {"cpu": "cpu", "gpu": "cuda"}.get(platform) if bench_pytorch.INSTALLED else None
    if device == "cuda" and not bench_pytorch.torch.cuda.is_available():
        return None
    return device


def pytorch_training(case: Case, device: str, compiled: bool) -> Run:
    """Steps of PyTorch's network, by SGD with Nesterov's momentum."""
    return _in_a_row(bench_pytorch.training(_network(case), *case.data(), PRECISION, device, compiled), device)


def pytorch_inference(case: Case, device: str, compiled: bool) -> Run:
    """Predictions of PyTorch's network."""
    return _in_a_row(bench_pytorch.inference(_network(case), case.data()[0], PRECISION, device, compiled), device)


def compiled_or_eager(make: Callable[[bool], Run], console: Console) -> tuple[str, Run]:
    """With `torch.compile` where one step of it works, else without; and which of them."""
    try:
        run = make(True)
        run(1)
        return "torch.compile", run
    except Exception as error:  # it needs compilers for the device and for the processor
        console.warn(f"torch.compile does not work here, PyTorch runs eagerly: {str(error).strip().splitlines()[:1]}")
    return "eager", make(False)


def _network(case: Case) -> Any:
    return bench_pytorch.airbench94() if case.name == "airbench94" else pytorch_model(case)


def _in_a_row(step: Callable[[], object], device: str) -> Run:
    def run(steps: int) -> None:
        for _ in range(steps):
            step()
        if device == "cuda":
            bench_pytorch.torch.cuda.synchronize()

    return run


def _as_it_is(run: Run) -> Run:
    return run


def _contestant(name: str, make: Callable[[], Run], work: Work) -> Contestant:
    """Made in the first round and kept, so that it is compiled only once."""

    @functools.cache
    def start() -> Callable[[], object]:
        run = make()
        return lambda: run(work.steps)

    return Contestant(name, work.case.batch * work.steps, start, work.seconds, warm_up=1)
