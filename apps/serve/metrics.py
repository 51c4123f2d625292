"""What the server counts, for Prometheus: TensorFlow Serving's names and our own."""

from apps.serve.batching import BatchDone


class Metrics:
    """Counters of one server."""

    def batch(self, model: str, done: BatchDone) -> None:
        """A batch of a model was computed."""

    def request(self, model: str, entrypoint: str, api: str, status: str, seconds: float) -> None:
        """A request was answered.

        Args:
            model: Its name, "" where it names no model that is known.
            entrypoint: "REST" or "GRPC".
            api: "Predict", "Classify", "Regress", "Infer", "GetModelStatus", "GetModelMetadata" and the like.
            status: "OK" or the name of an `errors.Code`.
            seconds: From the end of its header to the answer.
        """
