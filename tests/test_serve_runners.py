"""TensorFlow and OpenVINO compute the same versions, at once from several threads, and fail in words for clients."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from serving_examples import half_plus_two, picture

from apps.serve import tensorflow_runner
from apps.serve.batching import Workers
from apps.serve.errors import Code, Refusal
from apps.serve.loading import load_servable
from apps.serve.processor import cores, has_bfloat16
from apps.serve.runner import Runner, check_runner_name
from apps.serve.servable import Servable, validate
from apps.serve.settings import Settings
from apps.serve.signature import read_signatures
from apps.serve.tensorflow_runner import TensorFlowRunner, plain_message

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), "uint8")


@pytest.fixture(scope="module")
def decoders() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture(scope="module")
def tiny(models: Path) -> TensorFlowRunner:
    return TensorFlowRunner(models / "tiny/1")


@pytest.fixture(scope="module")
def on_openvino(models: Path, tiny: TensorFlowRunner) -> Runner:
    pytest.importorskip("openvino")
    from apps.serve.openvino_runner import OpenVINORunner, convert

    signatures = read_signatures(models / "tiny/1")
    converted = convert(tiny, signatures)
    assert list(converted) == ["serving_sized"]
    return OpenVINORunner(converted, signatures, tiny)


def servable(folder: Path, decoders: ThreadPoolExecutor, **settings: object) -> Servable:
    workers = Workers(1)
    options = Settings(**{"runner": "tensorflow", "max_batch": 4, **settings})
    return load_servable(folder, "m", 1, settings=options, workers=workers, decoders=decoders, observe=lambda *_: None)


@pytest.fixture(scope="module")
def loaded(models: Path, decoders: ThreadPoolExecutor) -> Servable:
    return servable(models / "tiny/1", decoders)


def ask(servable: Servable, signature: str | None, inputs: dict[str, np.ndarray], seconds: float = 60) -> dict:
    async def predict() -> dict[str, np.ndarray]:
        return await servable.predict(signature, inputs, asyncio.get_running_loop().time() + seconds)

    return asyncio.run(predict())


def refusal(servable: Servable, signature: str | None, inputs: dict[str, np.ndarray], seconds: float = 60) -> Refusal:
    with pytest.raises(Refusal) as refused:
        ask(servable, signature, inputs, seconds)
    return refused.value


# TensorFlow


def test_half_plus_two_by_hand(models: Path) -> None:
    outputs = TensorFlowRunner(models / "half/123").run("serving_default", {"x": np.array([1, 2, 5], "float32")})
    assert outputs["y"].tolist() == [2.5, 3.0, 4.5]


def test_clients_mistakes_have_a_short_message_without_paths_and_node_names(tiny: TensorFlowRunner) -> None:
    with pytest.raises(Refusal) as refused:
        tiny.run("decode", {"image_bytes": np.array(b"\xff\xd8\xff no JPEG", object)})
    assert refused.value.code is Code.INVALID_ARGUMENT
    for unwanted in ("{{", "[[", "Traceback", "/", "\n", "Graph execution error"):
        assert unwanted not in refused.value.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (tf.errors.InvalidArgumentError(None, None, "{{node a}} bad [[{{node a}}]]"), Code.INVALID_ARGUMENT),
        (tf.errors.ResourceExhaustedError(None, None, "OOM at /home/me/x"), Code.RESOURCE_EXHAUSTED),
        (MemoryError(), Code.RESOURCE_EXHAUSTED),
        (tf.errors.InternalError(None, None, "/home/me/secret"), Code.INTERNAL),
        (RuntimeError("/home/me/secret"), Code.INTERNAL),
    ],
)
def test_fault_20_errors_of_the_model_have_a_code_and_no_paths(
    error: Exception, code: Code, tiny: TensorFlowRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(tiny, "functions", {"f": fail})
    with pytest.raises(Refusal) as refused:
        tiny.run("f", {})
    assert refused.value.code is code
    assert "/home" not in refused.value.message and "node" not in refused.value.message


def test_trace_of_a_loaded_function_is_left_out_of_its_message() -> None:
    message = (
        "Graph execution error:\n\nDetected at node model/dense/MatMul defined at (most recent call last):\n"
        '  File "/home/me/serve.py", line 3, in <module>\n<stack traces unavailable>\n'
        "Matrix size-incompatible: In[0]: [1,3], In[1]: [4,2]\n\t [[{{node model/dense/MatMul}}]] [Op:__inference_f]"
    )
    error = tf.errors.InvalidArgumentError(None, None, message)
    assert plain_message(error) == "Matrix size-incompatible: In[0]: [1,3], In[1]: [4,2]"


def test_closed_runner_frees_its_variables(models: Path) -> None:
    import weakref

    runner = TensorFlowRunner(models / "tiny/1")
    variable = weakref.ref(runner.functions["serving_sized"].variables[0])
    runner.close()
    assert variable() is None


def test_reduced_precision_is_of_its_calls_alone(tiny: TensorFlowRunner) -> None:
    """Another runner of the same functions in the same thread computes as exactly as before."""
    reduced = tiny.in_reduced_precision()
    if reduced is None:
        pytest.skip("This TensorFlow has another inner interface.")
    before = tiny.run("serving_sized", {"image": PIXELS})
    rough = reduced.run("serving_sized", {"image": PIXELS})
    after = tiny.run("serving_sized", {"image": PIXELS})
    for head, values in before.items():
        np.testing.assert_array_equal(values, after[head])
        np.testing.assert_allclose(values, rough[head], atol=2e-2)
        if has_bfloat16():
            assert not np.array_equal(values, rough[head])
    assert reduced.name == "tensorflow bfloat16" or tf.config.list_physical_devices("GPU")


def test_fault_29_visible_but_broken_gpu_is_said_aloud_and_the_cpu_computes(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("The GPU of this machine works.")
    broken = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    grown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [broken])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, grow: grown.append((gpu, grow)))
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda _: None)
    monkeypatch.setattr(tf.config.threading, "set_inter_op_parallelism_threads", lambda _: None)
    tensorflow_runner._prepare.cache_clear()
    try:
        runner = TensorFlowRunner(models / "half/123")
        assert runner.run("serving_default", {"x": np.array([2], "float32")})["y"].tolist() == [3.0]
    finally:
        monkeypatch.undo()
        tensorflow_runner._prepare.cache_clear()
    assert grown == [(broken, True)]
    assert "GPU is visible but does not compute" in caplog.text


# OpenVINO


def test_openvino_agrees_with_tensorflow_for_every_number_of_rows(tiny: Runner, on_openvino: Runner) -> None:
    for rows in (1, 3, 16, 2):
        expected = tiny.run("serving_sized", {"image": PIXELS[:rows]})
        outputs = on_openvino.run("serving_sized", {"image": PIXELS[:rows]})
        assert outputs.keys() == expected.keys() == {"colour", "size"}
        for head, values in expected.items():
            np.testing.assert_allclose(outputs[head], values, atol=1e-5)


def test_openvino_leaves_other_signatures_to_tensorflow(on_openvino: Runner) -> None:
    data = np.array(picture(size=(8, 8)), object)
    assert on_openvino.run("decode", {"image_bytes": data})["image"].shape == (8, 8, 3)


def test_fault_27_openvino_gives_each_thread_its_own_answer(tiny: Runner, on_openvino: Runner) -> None:
    expected = tiny.run("serving_sized", {"image": PIXELS})["colour"]
    wrong = []

    def call(place: int) -> None:
        for turn in range(30):
            row = (place + turn) % len(PIXELS)
            answer = on_openvino.run("serving_sized", {"image": PIXELS[row : row + 1]})["colour"]
            if not np.allclose(answer, expected[row : row + 1], atol=1e-5):
                wrong.append(row)

    threads = [threading.Thread(target=call, args=[place]) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_answers_of_openvino_are_not_overwritten_by_the_next_call(on_openvino: Runner) -> None:
    first = on_openvino.run("serving_sized", {"image": PIXELS[:1]})["colour"]
    kept = first.copy()
    on_openvino.run("serving_sized", {"image": PIXELS[1:2]})
    np.testing.assert_array_equal(first, kept)


def test_read_only_and_strided_pixels_are_computed(tiny: Runner, on_openvino: Runner) -> None:
    received = np.frombuffer(PIXELS.tobytes(), "uint8").reshape(PIXELS.shape)
    for pixels in (received, PIXELS[::2], PIXELS[:, ::-1]):
        expected = tiny.run("serving_sized", {"image": pixels})["colour"]
        np.testing.assert_allclose(on_openvino.run("serving_sized", {"image": pixels})["colour"], expected, atol=1e-5)


def test_what_openvino_refuses_is_said_in_tensorflows_words(on_openvino: Runner) -> None:
    with pytest.raises(Refusal) as refused:
        on_openvino.run("serving_sized", {"image": PIXELS[:, :7]})
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert "openvino" not in refused.value.message.lower() and "src/" not in refused.value.message


def test_types_that_openvino_narrows_and_functions_that_count_are_left_to_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from apps.serve.openvino_runner import convert

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
        def add_one(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x + 1}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def count(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x + self.calls.assign_add(1.0)}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures={"add_one": module.add_one, "count": module.count})
    assert convert(TensorFlowRunner(tmp_path), read_signatures(tmp_path)) == {}


def test_what_openvino_converts_but_cannot_compile_is_served_by_tensorflow(
    models: Path, decoders: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as networks exported in bfloat16; the reason is told without places in OpenVINO's source."""
    pytest.importorskip("openvino")
    from apps.serve import openvino_runner

    def fail(*_: object) -> None:
        raise RuntimeError(
            "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/inference/src/dev/plugin.cpp:54:\n"
            "Check 'newNode' failed at src/plugins/intel_cpu/src/node.cpp:1626:\n"
            "Unsupported operation of type: Convert name: Transpose_439\nDetails:\nException from src/x.cpp:61:\n"
        )

    monkeypatch.setattr(openvino_runner, "_Compiled", fail)
    for wish in ("auto", "openvino"):
        caplog.clear()
        assert servable(models / "tiny/1", decoders, runner=wish).runner.name.startswith("tensorflow")
        reason = "OpenVINO cannot compile it: Unsupported operation of type: Convert name: Transpose_439"
        assert f"m 1: {reason}" in caplog.messages


# Names, cores


def test_runner_names_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    check_runner_name("tensorflow")
    with pytest.raises(ValueError, match="Did you mean tensorflow"):
        check_runner_name("tensorflo")
    monkeypatch.setattr("apps.serve.runner.has_openvino", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'kerascnn\[openvino\]'"):
        check_runner_name("openvino")
    check_runner_name("auto")


def test_a_containers_quota_counts_as_cores(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("50000 100000\n")
    assert cores(quota) == 1
    quota.write_text("max 100000\n")
    assert cores(quota) == cores(tmp_path / "missing") >= 1


# Servable


def test_pixels_of_the_networks_size_take_the_short_way_to_the_same_bits(loaded: Servable) -> None:
    asked = []
    run = loaded.runner.run
    loaded.batcher._run = lambda signature, inputs: asked.append(signature) or run(signature, inputs)
    try:
        short = ask(loaded, None, {"image": PIXELS[:4]})
        other = ask(loaded, None, {"image": np.zeros((1, 9, 9, 3), "uint8")})
    finally:
        loaded.batcher._run = run
    assert asked == ["serving_sized", "serving_default"]
    assert other["colour"].shape == (1, 3)
    for head, values in loaded.runner.run("serving_default", {"image": PIXELS[:4]}).items():
        np.testing.assert_array_equal(short[head], values)


def test_encoded_pictures_are_answered_as_the_export_does_itself(loaded: Servable) -> None:
    data = np.array([picture((200, 40, 40)), picture((40, 40, 200), kind="JPEG")], object)
    expected = loaded.runner.run("serving_bytes", {"image_bytes": data})
    for signature, name in (("serving_bytes", "image_bytes"), ("serving_default", "image"), ("serving_sized", "image")):
        outputs = ask(loaded, signature, {name: data})
        for head, values in expected.items():
            np.testing.assert_allclose(outputs[head], values, atol=1e-6)


def test_fault_17_pictures_that_find_no_room_are_not_decoded(loaded: Servable, monkeypatch) -> None:
    decoded = []
    monkeypatch.setattr(loaded, "_decode_one", lambda *arguments: decoded.append(arguments))
    with loaded.batcher.reserve(loaded.settings.most_queued_rows, 0):
        refused = refusal(loaded, "serving_bytes", {"image_bytes": np.array([picture()], object)})
        with pytest.raises(Refusal, match="queue is full"):
            loaded.check_room()
    assert refused.code is Code.UNAVAILABLE
    assert not decoded


def test_many_pictures_of_one_request_keep_their_order(loaded: Servable) -> None:
    data = np.array([picture((value, 0, 255 - value)) for value in range(150)], object)
    expected = loaded.runner.run("serving_bytes", {"image_bytes": data})["colour"]
    np.testing.assert_allclose(ask(loaded, "serving_bytes", {"image_bytes": data})["colour"], expected, atol=1e-6)


def test_fault_16_bad_picture_among_good_ones_is_named(loaded: Servable) -> None:
    data = np.array([picture(), picture()[:-30], picture()], object)
    refused = refusal(loaded, "serving_bytes", {"image_bytes": data})
    assert refused.code is Code.INVALID_ARGUMENT
    assert refused.message.startswith("Picture 1 (counted from 0): ")
    alone = refusal(loaded, "serving_bytes", {"image_bytes": data[1:2]})
    assert "counted" not in alone.message


def test_fault_28_no_pictures_give_no_rows(loaded: Servable) -> None:
    outputs = ask(loaded, "serving_bytes", {"image_bytes": np.zeros([0], object)})
    assert {head: values.shape for head, values in outputs.items()} == {"colour": (0, 3), "size": (0, 2)}


def test_fault_18_passed_deadline_ends_decoding_and_single_calls(loaded: Servable) -> None:
    data = np.array([picture()], object)
    assert refusal(loaded, "serving_bytes", {"image_bytes": data}, -1).code is Code.DEADLINE_EXCEEDED
    assert refusal(loaded, "decode", {"image_bytes": np.array(picture(), object)}, -1).code is Code.DEADLINE_EXCEEDED


def test_decode_of_one_picture_is_answered(loaded: Servable) -> None:
    image = ask(loaded, "decode", {"image_bytes": np.array(picture((10, 20, 30)), object)})["image"]
    assert image.shape == (8, 8, 3) and image[4, 4].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "Missing but required: {image}"),
        ({"image": PIXELS, "more": PIXELS}, "Sent extra: {more}"),
        ({"picture": PIXELS}, "1!=1 len({picture}) != len({image})"),
        ({"image": PIXELS.astype("float32")}, "must be uint8 [-1, -1, -1, 3], received float32 [16, 8, 8, 3]"),
        ({"image": PIXELS[0]}, "received uint8 [8, 8, 3]"),
        ({"image": PIXELS[..., :1]}, "received uint8 [16, 8, 8, 1]"),
        ({"image": np.zeros([2, 2], object)}, "received string [2, 2]"),
    ],
)
def test_fault_04_inputs_that_do_not_fit_are_refused(
    inputs: dict[str, np.ndarray], words: str, loaded: Servable
) -> None:
    refused = refusal(loaded, None, inputs)
    assert refused.code is Code.INVALID_ARGUMENT and words in refused.message


def test_inputs_with_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=name) for name in "ab"])
        def __call__(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": a + b}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    signature = read_signatures(tmp_path)["serving_default"]
    with pytest.raises(Refusal, match="same number of rows"):
        validate(signature, {"a": np.zeros(2, "float32"), "b": np.zeros(3, "float32")})


def test_pictures_for_a_foreign_model_must_have_its_size(tmp_path: Path, decoders: ThreadPoolExecutor) -> None:
    class Foreign(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 6, 5, 3], tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"mean": tf.reduce_mean(x, [1, 2])}

    module = Foreign()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.__call__)
    foreign = servable(tmp_path / "1", decoders)
    outputs = ask(foreign, None, {"x": np.array([picture((1, 2, 3), (6, 5))] * 2, object)})
    np.testing.assert_allclose(outputs["mean"], [[1, 2, 3]] * 2, atol=1e-5)
    refused = refusal(foreign, None, {"x": np.array([picture(size=(7, 5))], object)})
    assert "7 high and 5 wide" in refused.message and "6 by 5" in refused.message
    damaged = refusal(foreign, None, {"x": np.array([picture(size=(6, 5))[:-20]], object)})
    assert damaged.code is Code.INVALID_ARGUMENT


def test_openvino_is_chosen_where_asked_for(models: Path, decoders: ThreadPoolExecutor) -> None:
    pytest.importorskip("openvino")
    chosen = servable(models / "half/123", decoders, runner="openvino")
    assert chosen.runner.name == "openvino float32"
    assert ask(chosen, None, {"x": np.array([1, 2], "float32")})["y"].tolist() == [2.5, 3.0]
    chosen.runner.close()


def test_half_plus_two_with_other_numbers(tmp_path: Path) -> None:
    runner = TensorFlowRunner(half_plus_two(tmp_path / "1", half=3.0, two=-1.0))
    assert runner.run("serving_default", {"x": np.array([2], "float32")})["y"].tolist() == [5.0]


def test_what_is_not_batched_needs_room_too(loaded: Servable) -> None:
    """The threads that compute it have a queue without bounds."""
    inputs = {"image_bytes": np.array(picture(), object)}
    assert ask(loaded, "decode", inputs)["image"].shape == (8, 8, 3)
    with loaded.batcher.reserve(loaded.settings.most_queued_rows, 0):
        assert refusal(loaded, "decode", inputs).code is Code.UNAVAILABLE


def test_fault_08_small_files_of_large_pictures_are_limited_together(
    tmp_path: Path, decoders: ThreadPoolExecutor
) -> None:
    """Of a model of others that takes pictures of any size: nothing makes them smaller before they are joined."""
    module = tf.Module()
    pixels = tf.TensorSpec([None, None, None, 3], tf.float32, name="image")
    module.mean = tf.function(lambda image: {"y": tf.reduce_mean(image, [1, 2, 3])}, input_signature=[pixels])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.mean)
    model = servable(tmp_path / "1", decoders, queue_bytes=50_000)
    large = picture(size=(60, 60))  # 43,200 bytes of float32
    for count in (1, 2):
        inputs = {"image": np.array([large] * count, object)}
        if count == 1:
            assert ask(model, None, inputs)["y"].shape == (1,)
        else:
            refused = refusal(model, None, inputs)
            assert (refused.code, "more than 50,000 bytes of pixels" in refused.message) == (Code.TOO_LARGE, True)
