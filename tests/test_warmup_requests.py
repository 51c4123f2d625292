"""The warm-up file: read by TensorFlow Serving's own classes it is the requests and answers that were written."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascnn.warmup_requests import MOST_RECORDS, Call, prediction_log, write_warmup


@pytest.fixture
def api() -> object:
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import prediction_log_pb2

    return prediction_log_pb2


def test_official_classes_read_what_is_written_and_write_the_same(api) -> None:
    """Also values longer than 127 and 16,383 bytes, whose length takes two and three bytes, and names not ASCII."""
    for count in (1, 127, 128, 20_000):
        pixels = np.arange(count, dtype="uint8").reshape(1, count)
        inputs = {"image": pixels, "größe": np.array([b"\xff\x00", b""], object)}
        written = prediction_log(Call("serving_default", inputs, {"label": np.array([[0.25, 0.75]], "float32")}))
        expected = api.PredictionLog()
        predict = expected.predict_log
        predict.request.model_spec.signature_name = "serving_default"
        predict.response.model_spec.signature_name = "serving_default"
        for name, value in inputs.items():
            predict.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        predict.response.outputs["label"].CopyFrom(tf.make_tensor_proto([[0.25, 0.75]], tf.float32))
        assert api.PredictionLog.FromString(written) == expected


def test_records_of_an_export_are_requests_that_it_answers_as_recorded(api, models) -> None:
    folder = models / "tiny/1"
    exported = tf.saved_model.load(str(folder))
    canary = json.loads((folder / "assets.extra/canary.json").read_text())
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for record in tf.data.TFRecordDataset(str(folder / "assets.extra/tf_serving_warmup_requests")):
        log = api.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request, response = log.predict_log.request, log.predict_log.response
        signature = request.model_spec.signature_name
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        answers = exported.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        for name, values in answers.items():
            np.testing.assert_allclose(values, outputs[name], atol=1e-6)
        found.setdefault(signature, []).append(outputs)
    assert {name: len(records) for name, records in found.items()} == {"serving_bytes": 4, "serving_default": 4}
    for records in found.values():
        for head, expected in canary["probabilities"].items():
            np.testing.assert_allclose(np.concatenate([one[head] for one in records]), expected, atol=1e-6)


def test_more_records_than_a_server_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at most 1000 warm-up records. Received: 1001"):
        write_warmup(tmp_path, [Call("f", {}, {})] * (MOST_RECORDS + 1))
