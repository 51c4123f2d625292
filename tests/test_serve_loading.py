"""A version is only served when it is whole, finite and right; the fastest runner that agrees computes it."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from serving_examples import half_plus_two

from apps.serve import choosing
from apps.serve.batching import Workers
from apps.serve.canary import Example, check, made_up_example, wrong
from apps.serve.choosing import fastest, measure
from apps.serve.errors import Refusal, invalid
from apps.serve.loading import load_servable, quick_turns
from apps.serve.servable import Servable
from apps.serve.settings import Settings
from apps.serve.signature import read_signatures
from apps.serve.tensorflow_runner import TensorFlowRunner


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[..., Servable]]:
    """load(folder, **settings) gives a version."""
    with ThreadPoolExecutor(2) as decoders:

        def load(folder: Path, **settings: object) -> Servable:
            options = Settings(**{"runner": "tensorflow", "max_batch": 4, **settings})
            return load_servable(
                folder, "m", 1, settings=options, workers=Workers(1), decoders=decoders, observe=lambda *_: None
            )

        yield load


@pytest.fixture
def tiny(models: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(models / "tiny/1", tmp_path / "1"))


class Wrapped:
    """A runner whose answers are changed."""

    def __init__(self, runner: TensorFlowRunner, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.name, self._runner, self._change = name, runner, change

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: self._change(value) for name, value in self._runner.run(signature, inputs).items()}

    def close(self) -> None:
        pass


# Damage


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0xFF
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


DATA = "variables/variables.data-00000-of-00001"
DAMAGE: dict[str, Callable[[Path], object]] = {
    "no saved_model.pb": lambda folder: (folder / "saved_model.pb").unlink(),
    "saved_model.pb cut short": lambda folder: cut(folder / "saved_model.pb"),
    "saved_model.pb with a flipped byte": lambda folder: flip(folder / "saved_model.pb", 0.0),
    "saved_model.pb empty": lambda folder: (folder / "saved_model.pb").write_bytes(b""),
    "saved_model.pb that cannot be read": lambda folder: unreadable(folder / "saved_model.pb"),
    "no variables": lambda folder: shutil.rmtree(folder / "variables"),
    "no index": lambda folder: (folder / "variables/variables.index").unlink(),
    "index cut short": lambda folder: cut(folder / "variables/variables.index"),
    "data cut short": lambda folder: cut(folder / DATA),
    "data with a flipped byte": lambda folder: flip(folder / DATA, 0.5),
    "metadata damaged": lambda folder: (folder / "assets.extra/kerascnn.json").write_text('{"classes": '),
    "metadata of another kind": lambda folder: (folder / "assets.extra/kerascnn.json").write_text("[]"),
    "canary damaged": lambda folder: (folder / "assets.extra/canary.json").write_text('{"image_bytes": ["!"]}'),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_fault_22_damaged_version_is_a_sentence_without_paths(
    kind: str, tiny: Path, load: Callable[..., Servable]
) -> None:
    DAMAGE[kind](tiny)
    with pytest.raises((ValueError, OSError)) as damaged:
        load(tiny)
    message = str(damaged.value)
    assert len(message) > 20 and str(tiny) not in message and "\n" not in message
    assert message.startswith(("There is no saved_model.pb", "The SavedModel", "saved_model.pb")) or kind in (
        "metadata damaged",
        "metadata of another kind",
        "canary damaged",
    )


def test_version_without_fingerprint_is_served(tiny: Path, load: Callable[..., Servable]) -> None:
    (tiny / "fingerprint.pb").unlink()
    assert load(tiny).classes["colour"] == ["red", "green", "blue"]


def test_fault_22_wrong_recorded_answers_are_found(tiny: Path, load: Callable[..., Servable]) -> None:
    path = tiny / "assets.extra/canary.json"
    examples = json.loads(path.read_text(encoding="utf-8"))
    rows = examples["probabilities"]["size"]
    rows[2] = [row + 0.01 for row in rows[2]]
    path.write_text(json.dumps(examples), encoding="utf-8")
    with pytest.raises(ValueError, match=r"output size of signature serving_sized differs .* by 0\.01"):
        load(tiny)


def test_fault_22_answers_of_a_bfloat16_export_may_be_less_exact(tiny: Path, load: Callable[..., Servable]) -> None:
    described, canary = tiny / "assets.extra/kerascnn.json", tiny / "assets.extra/canary.json"
    examples = json.loads(canary.read_text(encoding="utf-8"))
    examples["probabilities"]["size"][0][0] += 0.01
    canary.write_text(json.dumps(examples), encoding="utf-8")
    metadata = json.loads(described.read_text(encoding="utf-8"))
    described.write_text(json.dumps({**metadata, "classifier": {"precision": "bfloat16"}}), encoding="utf-8")
    load(tiny)


@pytest.mark.parametrize("canary", [True, False])
def test_fault_22_nan_weights_are_found(
    canary: bool, tmp_path: Path, load: Callable[..., Servable], models: Path
) -> None:
    """With recorded examples and without: random pixels do."""
    loaded = tf.saved_model.load(str(models / "tiny/1"))
    for variable in loaded.signatures["serving_sized"].variables:  # all: a rectifier makes 0 of NaN
        variable.assign(tf.fill(variable.shape, np.nan))
    signatures = {name: loaded.signatures[name] for name in ("serving_sized", "decode")}
    tf.saved_model.save(loaded, str(tmp_path / "1"), signatures=signatures)
    if canary:
        shutil.copytree(models / "tiny/1/assets.extra", tmp_path / "1/assets.extra")
    with pytest.raises(ValueError, match="not finite"):
        load(tmp_path / "1")


def test_fault_22_nan_weights_of_a_model_without_pictures_are_found(
    tmp_path: Path, load: Callable[..., Servable]
) -> None:
    with pytest.raises(ValueError, match="output y of signature serving_default has 2 of 2 values that are not finite"):
        load(half_plus_two(tmp_path / "1", two=float("nan")))


# Canary


def test_answers_are_compared_by_value_and_by_clear_winners(models: Path) -> None:
    signature = read_signatures(models / "tiny/1")["serving_sized"]
    colour = np.array([[0.50, 0.49, 0.01], [0.3, 0.6, 0.1]], "float32")
    size = np.array([[0.9, 0.1], [0.2, 0.8]], "float32")
    recorded = {"colour": colour, "size": size}
    example = Example("serving_sized", {"image": np.zeros([2, 8, 8, 3], "uint8")}, recorded)
    check(example, signature, {"colour": colour + 5e-4, "size": size}, "float32")
    swapped = colour.copy()
    swapped[0] = [0.49, 0.50, 0.01]  # closer together than bfloat16 can tell apart
    check(example, signature, {"colour": swapped, "size": size}, "bfloat16")
    with pytest.raises(ValueError, match="differs"):
        check(example, signature, {"colour": swapped, "size": size}, "float32")
    with pytest.raises(ValueError, match="not finite"):
        check(example, signature, {"colour": colour, "size": np.where(size > 0.5, np.nan, size)}, "float32")
    with pytest.raises(ValueError, match="as the signature says"):
        check(example, signature, {"colour": colour[:, :2], "size": size}, "float32")
    with pytest.raises(ValueError, match="as the signature says"):
        check(example, signature, {"colour": colour}, "float32")
    other = Example("serving_sized", example.inputs, {"shape": size})
    with pytest.raises(ValueError, match="shape, which is no output"):
        check(other, signature, recorded, "float32")


def test_large_answers_may_differ_in_proportion(models: Path) -> None:
    signature = read_signatures(models / "half/123")["serving_default"]
    example = Example("serving_default", {"x": np.ones(1, "float32")}, {"y": np.array([5000], "float32")})
    check(example, signature, {"y": np.array([5004], "float32")}, "float32")
    with pytest.raises(ValueError, match="differs"):
        check(example, signature, {"y": np.array([5006], "float32")}, "float32")


def test_numbers_outside_a_models_domain_do_not_make_it_broken(tmp_path: Path, load: Callable[..., Servable]) -> None:
    """log(x - 0.5) is NaN for half of all made-up numbers; asking for positive ones refuses them."""

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
        def log(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.math.log(x - 0.5)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def strict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            with tf.control_dependencies([tf.debugging.assert_greater(x, 10.0)]):
                return {"y": tf.identity(x)}

    module = Module()
    signatures = {"serving_default": module.log, "strict": module.strict}
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)
    assert load(tmp_path / "1").runner.name == "tensorflow"


def test_made_up_examples_are_of_the_signatures_kind(models: Path) -> None:
    signatures = read_signatures(models / "tiny/1")
    pixels = made_up_example(signatures["serving_sized"], 3)
    assert pixels is not None
    assert pixels.inputs["image"].shape == (3, 8, 8, 3) and pixels.inputs["image"].dtype == np.uint8
    assert pixels.inputs["image"].std() > 50
    assert made_up_example(signatures["serving_bytes"], 1) is None
    assert made_up_example(signatures["decode"], 1) is None


def test_warm_up_records_of_others_are_examples_too(tmp_path: Path, load: Callable[..., Servable]) -> None:
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    folder = half_plus_two(tmp_path / "1")
    path = folder / "assets.extra/tf_serving_warmup_requests"
    path.parent.mkdir()

    def write(answer: float) -> None:
        log = logs.PredictionLog()
        log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([4.0]))
        log.predict_log.response.outputs["y"].CopyFrom(tf.make_tensor_proto([answer]))
        with tf.io.TFRecordWriter(str(path)) as file:
            file.write(log.SerializeToString())

    write(4.0)
    load(folder)
    write(4.5)
    with pytest.raises(ValueError, match=r"differs from the recorded answer by 0\.5"):
        load(folder)
    path.write_bytes(b"no records at all, but text")
    with pytest.raises(ValueError, match="tf_serving_warmup_requests is damaged"):
        load(folder)


def test_examples_that_the_model_refuses_make_it_wrong(models: Path) -> None:
    signatures = read_signatures(models / "half/123")
    example = Example("serving_default", {"x": np.ones(1, "float32")}, None)

    class Refusing:
        name = "refusing"

        def run(self, *_: object) -> dict[str, np.ndarray]:
            raise invalid("no")

        def close(self) -> None:
            pass

    assert (
        wrong(Refusing(), [example], signatures, "float32", 4)
        == "The signature serving_default fails on an example: no"
    )
    unknown = [Example("missing", {"x": np.ones(1, "float32")})]
    assert "signature missing, which is not there" in str(wrong(Refusing(), unknown, signatures, "float32", 4))


# Runners


def test_the_fastest_that_agrees_is_chosen_and_said(
    models: Path, load: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The speeds are given, so that the choice does not depend on the machine."""
    given = {"tensorflow": [10.0, 10.0], "quick": [100.0, 100.0], "wrong": [1000.0, 1000.0]}

    def candidates(label: str, wish: str, runner: TensorFlowRunner, *_: object) -> Iterator[tuple[str, object]]:
        yield "float32", runner
        yield "float32", Wrapped(runner, "quick", lambda value: value)
        yield "bfloat16", Wrapped(runner, "wrong", lambda value: value + 0.1 if value.dtype == np.float32 else value)

    monkeypatch.setattr(choosing, "_candidates", candidates)
    monkeypatch.setattr(choosing, "measure", lambda runners, _: {runner.name: given[runner.name] for runner in runners})
    with caplog.at_level(logging.INFO, "apps.serve"):
        servable = load(models / "tiny/1", runner="auto")
    assert servable.runner.name == "quick"
    assert "m 1: quick 100 rows/s (100 singly), tensorflow 10 rows/s (10 singly)" in caplog.text
    assert "m 1: wrong is not used: The output colour of signature serving_sized differs" in caplog.text


def test_all_installed_runners_are_measured(models: Path, load: Callable[..., Servable], caplog) -> None:
    pytest.importorskip("openvino")
    with caplog.at_level(logging.INFO, "apps.serve"):
        servable = load(models / "tiny/1", runner="auto")
    assert "openvino float32" in caplog.text and "tensorflow" in caplog.text and "rows/s" in caplog.text
    servable.runner.close()


def test_openvino_that_can_compute_nothing_leaves_it_to_tensorflow(
    tmp_path: Path, load: Callable[..., Servable], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x + 1}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.__call__)
    assert load(tmp_path / "1", runner="openvino").runner.name == "tensorflow"
    assert "openvino cannot compute it, so tensorflow does" in caplog.text


def test_missing_runner_is_an_error_that_names_the_extra(
    models: Path, load: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.serve.runner.has_openvino", lambda: False)
    with pytest.raises(ValueError, match=r"kerascnn\[openvino\]"):
        load(models / "half/123", runner="openvino")


def test_small_wins_do_not_count_against_a_more_exact_runner() -> None:
    order = ["tensorflow", "openvino float32", "openvino bfloat16"]
    assert fastest({"tensorflow": [100, 100], "openvino float32": [109, 109]}, order) == "tensorflow"
    assert fastest({"tensorflow": [100, 100], "openvino float32": [50, 300]}, order) == "openvino float32"


def test_runners_that_fail_while_measured_are_out(models: Path) -> None:
    runner = TensorFlowRunner(models / "half/123")

    def fail(_: np.ndarray) -> np.ndarray:
        raise invalid("no")

    example = made_up_example(read_signatures(models / "half/123")["serving_default"], 4)
    assert example is not None
    speeds = measure([runner, Wrapped(runner, "failing", fail)], [example])
    assert list(speeds) == ["tensorflow"] and speeds["tensorflow"][0] > 0


def test_every_allowed_number_of_rows_is_warm(
    models: Path, load: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    run = TensorFlowRunner.run

    def spy(self: TensorFlowRunner, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.add((signature, next(iter(inputs.values())).shape[:1]))
        return run(self, signature, inputs)

    monkeypatch.setattr(TensorFlowRunner, "run", spy)
    load(models / "tiny/1", max_batch=6)
    assert {rows for signature, rows in seen if signature == "serving_sized"} >= {(1,), (2,), (4,), (6,)}
    assert {signature for signature, _ in seen} >= {"serving_default", "decode"}


def test_turns_are_short_while_any_load_runs() -> None:
    before = sys.getswitchinterval()
    with quick_turns():
        assert sys.getswitchinterval() == pytest.approx(0.0005)
        with quick_turns():
            pass
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    assert sys.getswitchinterval() == before


def test_failed_load_restores_the_turns_and_closes_what_was_loaded(
    models: Path, load: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, closed = sys.getswitchinterval(), []
    monkeypatch.setattr(TensorFlowRunner, "close", lambda self: closed.append(self))
    monkeypatch.setattr("apps.serve.loading.warm_up", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(models / "half/123")
    assert len(closed) == 1 and sys.getswitchinterval() == before


def test_models_that_refuse_the_warm_up_are_served(models: Path, load: Callable[..., Servable]) -> None:
    servable = load(models / "half/123", max_batch=1)
    with pytest.raises(Refusal):
        servable.signature("missing")


def test_recorded_requests_without_answers_let_no_wrong_runner_through(
    tmp_path: Path, load: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TensorFlow Serving's warm-up needs; TensorFlow's answers are what the others must agree with."""
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    folder = half_plus_two(tmp_path / "1")
    log = logs.PredictionLog()
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([4.0]))
    (folder / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(folder / "assets.extra/tf_serving_warmup_requests")) as file:
        file.write(log.SerializeToString())
    other = TensorFlowRunner(half_plus_two(tmp_path / "2", two=3.0))
    asked = []

    def candidates(label: str, wish: str, runner: TensorFlowRunner, signatures: object, known: bool) -> Iterator[Any]:
        asked.append(known)
        other.name = "wrong"
        yield "float32", other

    monkeypatch.setattr(choosing, "_candidates", candidates)
    assert load(folder).runner.name == "tensorflow"
    assert asked == [False]  # nothing tells how far a lower precision is off


@pytest.mark.parametrize("exact", [False, True])
def test_exact_leaves_lower_precisions_out(
    models: Path, load: Callable[..., Servable], monkeypatch, exact: bool
) -> None:
    asked = []

    def candidates(label: str, wish: str, runner: TensorFlowRunner, signatures: object, lower: bool) -> Iterator[Any]:
        asked.append(lower)
        yield "float32", runner

    monkeypatch.setattr(choosing, "_candidates", candidates)
    load(models / "tiny/1", exact=exact)
    assert asked == [not exact]
