"""Versions of an exported model: counted up, whole or not at all, cleaned of what a killed export left."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascnn.export import Classifier, export_model, new_version, read_metadata, versions


def test_versions_count_up_and_none_is_replaced(tmp_path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    for expected in ("8", "9"):
        with new_version(tmp_path) as (unfinished, version):
            (unfinished / "saved_model.pb").write_text(expected)
        assert version == tmp_path / expected
    assert versions(tmp_path) == [7, 8, 9]
    assert (tmp_path / "8/saved_model.pb").read_text() == "8"


def test_failed_export_leaves_nothing(tmp_path) -> None:
    with pytest.raises(RuntimeError), new_version(tmp_path) as (unfinished, _):
        (unfinished / "saved_model.pb").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_left_over_of_a_killed_export_is_removed_and_that_of_a_running_one_is_not(tmp_path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".unfinished-1-{ended.pid}").mkdir()
    running = tmp_path / f".unfinished-1-{os.getppid()}"
    running.mkdir()
    with new_version(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "1"]


def test_classifier_needs_named_heads_and_an_export_its_class_names(tmp_path) -> None:
    with pytest.raises(ValueError, match="at least one network"):
        Classifier([], (8, 8), decode=None, resize=None)
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, {"label": keras.layers.Dense(2)(keras.layers.Flatten()(inputs))})
    for shift in (-1, 8):
        with pytest.raises(ValueError, match="`shift` must be 0 or more, and less than a side"):
            Classifier([model], (8, 8), decode=None, resize=None, shift=shift)
    with pytest.raises(ValueError, match="must have an entry 'classes'"):
        export_model(None, tmp_path, {"size": 3})
    with pytest.raises(FileNotFoundError, match="no SavedModel written by kerascnn"):
        read_metadata(tmp_path)


def test_answers_average_the_picture_its_mirror_image_and_both_moved() -> None:
    """Weights 1 for the picture, 1/2 for it moved either way, each with its mirror image."""
    generator = np.random.default_rng(0)
    inputs = keras.Input((5, 6, 3))
    logits = keras.layers.Dense(4)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, {"label": logits})
    pictures = generator.integers(0, 256, (3, 5, 6, 3)).astype("uint8")
    classifier = Classifier([model, model], (5, 6), decode=None, resize=lambda x, size: x, mirror=True, shift=2)
    found = classifier.predict_pixels(pictures)["label"].numpy()

    def probabilities(pictures: np.ndarray) -> np.ndarray:
        values = keras.ops.convert_to_numpy(model(pictures.astype("float32"))["label"])
        exponentials = np.exp(values - values.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = 0.0
    for weight, view in ((0.25, pictures), (0.125, padded[:, 4:, 4:]), (0.125, padded[:, :5, :6])):
        expected += weight * (probabilities(view) + probabilities(view[:, :, ::-1]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def dense(seed: int) -> keras.Model:
    """A network with two heads, of 3 and 2 classes, whose answers depend on the picture."""
    inputs = keras.Input((5, 6, 3))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    start = keras.initializers.RandomNormal(0, 0.3, seed=seed)
    heads = {head: keras.layers.Dense(size, kernel_initializer=start)(flat) for head, size in (("a", 3), ("b", 2))}
    return keras.Model(inputs, heads)


def answers_of(models: list[keras.Model], **options: object) -> dict[str, np.ndarray]:
    pictures = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3)).astype("uint8")
    classifier = Classifier(models, (5, 6), decode=None, resize=lambda x, size: x, **options)
    return {head: values.numpy() for head, values in classifier.predict_pixels(pictures).items()}


def test_temperatures_calibrate_the_averaged_probabilities_and_change_no_answer() -> None:
    models = [dense(0), dense(1)]
    plain = answers_of(models)
    calibrated = answers_of(models, temperatures={"a": 0.4}, names={"a": "größe"})
    powers = plain["a"].astype(float) ** (1 / 0.4)
    np.testing.assert_allclose(calibrated["größe"], powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(calibrated["größe"].argmax(axis=1), plain["a"].argmax(axis=1))
    np.testing.assert_array_equal(calibrated["b"], plain["b"])


def test_networks_count_by_their_weights() -> None:
    models = [dense(0), dense(1)]
    alone = [answers_of([model])["a"] for model in models]
    np.testing.assert_allclose(answers_of(models, weights=[3, 1])["a"], 0.75 * alone[0] + 0.25 * alone[1], atol=1e-6)
    np.testing.assert_allclose(answers_of(models)["a"], (alone[0] + alone[1]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0]}, "`weights` needs a positive number for each of 2 networks"),
        ({"weights": [1.0, 0.0]}, "`weights` needs a positive number"),
        ({"temperatures": {"a": 0.0}}, "`temperatures` must be positive. Received: a=0.0"),
        ({"temperatures": {"a": float("inf")}}, "`temperatures` must be positive"),
    ],
)
def test_impossible_weights_and_temperatures_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        answers_of([dense(0), dense(1)], **options)


def test_export_answers_in_a_session_as_tensorflow_serving_runs_it(tmp_path) -> None:
    """Its loader restores variables by the names in the graph, not by the objects of `tf.saved_model.load`."""
    from serving_examples import tiny_classifier

    folder = os.fspath(tiny_classifier(tmp_path / "1"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    expected = tf.saved_model.load(folder).signatures["serving_sized"](image=tf.constant(pixels))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
        signature = graph.signature_def["serving_sized"]
        outputs = {head: output.name for head, output in signature.outputs.items()}
        found = session.run(outputs, {signature.inputs["image"].name: pixels})
    for head, values in expected.items():
        np.testing.assert_allclose(found[head], values.numpy(), atol=1e-6)
