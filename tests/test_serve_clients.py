"""Clients as their makers publish them: Triton's over HTTP, and curl."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_examples import CLASSES, Server, picture


def curl(*arguments: object) -> Any:
    """What curl prints, as JSON."""
    if shutil.which("curl") is None:
        pytest.skip("There is no curl.")
    command = ["curl", "--silent", "--max-time", "60", *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(picture((40, 60, 200), (30, 40), "JPEG"))
    return path


def test_curl_sends_a_picture_as_it_is(server: Server, photograph: Path) -> None:
    url = f"{server.url}/v2/models/tiny/infer"
    typed = curl(url, "--data-binary", f"@{photograph}", "-H", "Content-Type: image/jpeg")
    raw = curl(url, "--data-binary", f"@{photograph}", "-H", "Inference-Header-Content-Length: 0")
    assert typed == raw
    assert [output["name"] for output in typed["outputs"]] == list(CLASSES)
    for output in typed["outputs"]:
        assert output["shape"] == [1, len(CLASSES[output["name"]])]
        assert sum(output["data"]) == pytest.approx(1, abs=0.02)  # in bfloat16, where that was the faster
    broken = photograph.with_name("broken.jpg")
    broken.write_bytes(photograph.read_bytes()[:300])
    assert curl(url, "--data-binary", f"@{broken}", "-H", "Content-Type: image/jpeg").keys() == {"error"}


@pytest.fixture(scope="module")
def triton() -> Any:
    """Triton's client, unmodified."""
    return pytest.importorskip("tritonclient.http", exc_type=ImportError)


@pytest.fixture
def client(triton: Any, server: Server) -> Any:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def test_triton_client_sees_what_is_served(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("half")
    assert client.is_model_ready("half", "123")
    assert not client.is_model_ready("half", "9")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "kerascnn"
    assert client.get_model_metadata("tiny")["inputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    ]
    assert client.get_model_config("tiny")["input"] == [
        {"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}
    ]
    assert {entry["name"]: entry["state"] for entry in client.get_model_repository_index()} == {
        "half": "READY",
        "tiny": "READY",
    }
    assert client.get_inference_statistics("half", "123")["model_stats"][0]["name"] == "half"
    assert len(client.get_inference_statistics()["model_stats"]) == 2
    client.load_model("half")


@pytest.mark.parametrize("sent_binary", [False, True])
@pytest.mark.parametrize("answered_binary", [False, True])
def test_triton_client_sends_and_receives_json_and_bytes(
    triton: Any, client: Any, sent_binary: bool, answered_binary: bool
) -> None:
    values = np.array([1, 0.1, np.nan, np.inf, -3e38], np.float32)
    given = triton.InferInput("x", [5], "FP32")
    given.set_data_from_numpy(values, binary_data=sent_binary)
    wanted = triton.InferRequestedOutput("y", binary_data=answered_binary)
    result = client.infer("half", [given], outputs=[wanted], request_id="7")
    np.testing.assert_array_equal(result.as_numpy("y"), values * np.float32(0.5) + np.float32(2))
    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == "123"
    assert ("data" in result.get_output("y")) is not answered_binary


def test_triton_client_gets_the_same_answer_for_a_picture_on_every_way(
    triton: Any, client: Any, server: Server, photograph: Path
) -> None:
    data = photograph.read_bytes()
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([data], object))
    result = client.infer("tiny", [given])
    raw = client.generate_request_body  # what a program makes that talks to the server itself
    body, length = raw([given])
    same = server.post("/v2/models/tiny/infer", body, {"Inference-Header-Content-Length": str(length)})
    parsed = client.parse_response_body(same.body, header_length=int(same.headers["inference-header-content-length"]))
    posted = server.post("/v2/models/tiny/infer", data, {"Content-Type": "image/jpeg"}).json["outputs"]
    for output in posted:
        expected = np.array(output["data"], np.float32).reshape(output["shape"])
        np.testing.assert_array_equal(result.as_numpy(output["name"]), expected)
        np.testing.assert_array_equal(parsed.as_numpy(output["name"]), expected)


@pytest.mark.parametrize("binary", [False, True])
def test_triton_client_gets_the_best_classes(triton: Any, client: Any, photograph: Path, binary: bool) -> None:
    given = triton.InferInput("image", [2], "BYTES")
    given.set_data_from_numpy(np.array([photograph.read_bytes(), picture()], object))
    probabilities = client.infer("tiny", [given]).as_numpy("colour")
    wanted = triton.InferRequestedOutput("colour", binary_data=binary, class_count=2)
    best = client.infer("tiny", [given], outputs=[wanted]).as_numpy("colour")
    assert best.shape == (2, 2)
    for row, texts in zip(probabilities, best, strict=True):
        for index, text in zip(np.argsort(-row)[:2], texts, strict=True):
            text = text.decode() if isinstance(text, bytes) else str(text)
            assert text == f"{row[index]:f}:{index}:{CLASSES['colour'][index]}"


def test_triton_client_compresses_what_it_sends(triton: Any, client: Any) -> None:
    given = triton.InferInput("x", [1000], "FP32")
    given.set_data_from_numpy(np.ones(1000, np.float32))
    for algorithm in ("gzip", "deflate"):
        result = client.infer("half", [given], request_compression_algorithm=algorithm)
        assert (result.as_numpy("y") == 2.5).all()


def test_triton_client_is_told_its_mistakes(triton: Any, client: Any) -> None:
    error = pytest.importorskip("tritonclient.utils").InferenceServerException
    given = triton.InferInput("x", [1], "INT32")
    given.set_data_from_numpy(np.ones(1, np.int32))
    with pytest.raises(error, match=r"'x' must be FP32 of shape \[-1\]") as caught:
        client.infer("half", [given])
    assert caught.value.status() == "400"
    with pytest.raises(error, match=r"Specific\(half, 9\)") as caught:
        client.infer("half", [given], model_version="9")
    assert caught.value.status() == "404"
    with pytest.raises(error, match="without parameters"):
        client.load_model("half", config="{}")
