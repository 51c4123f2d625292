"""The same SavedModel behind other servers, for `kerascnn bench serve`: FastAPI, and LitServe with its own batching.

Each takes `{"image": BASE64}` by `POST /predict` and answers with the probabilities of the head `label`.
"""

import base64
import importlib.util
import sys
from typing import Any

import numpy as np

RIVALS = {"fastapi": "FastAPI, one predict a request", "litserve": "LitServe, batches of 32"}
INSTALL = "For the other servers beside it: pip install 'kerascnn[rivals]'."


def installed(rival: str) -> bool:
    """Whether that server is here."""
    return importlib.util.find_spec(rival) is not None


def serve_fastapi(saved_model: str, port: int) -> None:
    """One call of the model per request, in FastAPI's thread pool."""
    import tensorflow as tf
    import uvicorn
    from fastapi import FastAPI

    model = tf.saved_model.load(saved_model)
    predict = model.signatures["serving_bytes"]
    app = FastAPI()

    @app.post("/predict")
    def answer(request: dict[str, str]) -> dict[str, list[float]]:
        data = base64.b64decode(request["image"])
        return {"label": predict(image_bytes=tf.constant([data]))["label"][0].numpy().tolist()}

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


Api: Any = importlib.import_module("litserve").LitAPI if installed("litserve") else object


class LitServeApi(Api):
    """Each picture is decoded alone; up to 32 that arrive within 5 ms are predicted together."""

    def __init__(self, saved_model: str) -> None:
        super().__init__(max_batch_size=32, batch_timeout=0.005)
        self.saved_model = saved_model

    def setup(self, device: str) -> None:
        """In the worker process."""
        import tensorflow as tf

        model = tf.saved_model.load(self.saved_model)
        self._decode, self._predict = model.signatures["decode"], model.signatures["serving_sized"]
        self._constant = tf.constant

    def decode_request(self, request: dict[str, str]) -> Any:
        """Pixels of one picture."""
        data = base64.b64decode(request["image"])
        return self._decode(image_bytes=self._constant(data))["image"].numpy()

    def batch(self, inputs: list[Any]) -> Any:
        """Pixels of all."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """Probabilities of all."""
        return self._predict(image=self._constant(x))["label"].numpy()

    def unbatch(self, output: Any) -> list[Any]:
        """Those of each."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        """As JSON."""
        return {"label": output.tolist()}


def serve_litserve(saved_model: str, port: int) -> None:
    """LitServe with one worker process."""
    import litserve

    server = litserve.LitServer(LitServeApi(saved_model), accelerator="cpu", timeout=120)
    server.run(port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    rival, folder, number = sys.argv[1:]
    {"fastapi": serve_fastapi, "litserve": serve_litserve}[rival](folder, int(number))
