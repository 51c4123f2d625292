"""Small SavedModels, and a real server in a process of its own, for the tests of serving."""

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {"colour": ["red", "green", "blue"], "size": ["small", "large"]}


def picture(colour: tuple[int, int, int] = (200, 40, 40), size: tuple[int, int] = (12, 10), kind: str = "PNG") -> bytes:
    """An encoded picture of one colour, (height, width) pixels."""
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), colour, "uint8")).save(file, kind)
    return file.getvalue()


def half_plus_two(folder: Path, half: float = 0.5, two: float = 2.0) -> Path:
    """A SavedModel without pictures: `x` float32 [N] to `y` = half * x + two, as in TensorFlow Serving's own tests."""
    import tensorflow as tf

    class HalfPlusTwo(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": half * x + two}

    module = HalfPlusTwo()
    tf.saved_model.save(module, os.fspath(folder), signatures=module.__call__)
    return folder


def tiny_classifier(folder: Path, seed: int = 0) -> Path:
    """An export of this toolkit: two heads, 8x8 pixels, random weights, four canary examples."""
    import keras

    from kerascnn.export import Classifier, export_model
    from pipelines.decode import decode_picture, resize

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    features = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(
        inputs, {head: keras.layers.Dense(len(names), name=head)(features) for head, names in CLASSES.items()}
    )
    colours = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (90, 90, 90))
    folder.mkdir(parents=True)
    metadata = {"classes": CLASSES, "image_size": [8, 8]}
    export_model(
        Classifier([model], (8, 8), decode_picture, resize), folder, metadata, [picture(colour) for colour in colours]
    )
    return folder


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Server:
    """`kerascnn serve FOLDER OPTIONS` on a free port, until the block ends."""

    def __init__(self, folder: Path, *options: object, **environment: str) -> None:
        command = [sys.executable, "-m", "apps.cli", "serve", folder, "--port", 0, *options]
        # A file: a pipe that nobody reads gets full, and libjpeg, which writes there itself, then waits for ever.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        line = self.process.stdout.readline()
        while line and "http" not in line:
            line = self.process.stdout.readline()
        if not line:
            self.process.wait(60)
            self.errors.seek(0)
            raise RuntimeError(f"The server did not start: {self.errors.read()}")
        self.port = int(line.rsplit(":", 1)[1].split()[0].rstrip("/"))
        self.url = f"http://127.0.0.1:{self.port}"
        self._wait_while_loading()

    def _wait_while_loading(self) -> None:
        """The port is open before the models are loaded."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                if b"kerascnn_loading 1.0" not in self.get("/metrics").body:
                    return
            except (OSError, http.client.HTTPException):  # not plain HTTP, or gone
                return
            time.sleep(0.05)

    def request(
        self, method: str, path: str, body: bytes | object | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, content, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        """`GET path`."""
        return self.request("GET", path)

    def post(self, path: str, body: bytes | object, headers: Mapping[str, str] | None = None) -> Answer:
        """`POST path`."""
        return self.request("POST", path, body, headers)

    def stop(self) -> int:
        """SIGTERM, then the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        (self.process.stderr or self.errors).close()
