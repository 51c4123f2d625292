"""Every limit and every choice of the server, with its default."""

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What `kerascnn serve` can be told; times in seconds, sizes in bytes.

    Args:
        folder: saved_models/, holding NAME/VERSION/; one model's folder, holding VERSION/; or one SavedModel.
        host: Address to listen on; only this machine can reach the default.
        port: Of REST; 0 takes a free one.
        grpc_port: Of gRPC, 0 for a free one; None: no gRPC.
        runner: "tensorflow", "openvino", or "auto" for the fastest that agrees.
        max_batch: Rows that are computed together at most; larger requests are split.
        max_wait: How long a worker that is free waits for a fuller batch; 0 never waits.
        workers: Batches computed at the same time; 0: one on a GPU, else up to 2.
        queue_rows: Rows that may wait for a worker, of every model; more are refused. 0: 4 times `max_batch`.
        queue_bytes: The same in bytes.
        max_body: Of a request, after decompression.
        max_pixels: Height times width of an encoded picture, read from its header before it is decoded.
        formats: Kinds of encoded pictures that are let in: "jpeg", "png", "gif", "bmp", "webp".
        max_connections: Open at the same time; more are closed at once.
        header_seconds: From connecting (or from the last answer's next byte) to the end of the header.
        body_seconds: From there to the end of the body.
        keep_alive_seconds: How long an idle connection stays open after an answer.
        request_seconds: From the end of the header to the answer; then 504.
        overload_status: What a full queue answers: 503, as TensorFlow Serving does, or 429.
        retry_after: Of a refusal.
        poll_seconds: How often the folder is looked at; 0: once, at the start.
        hang_seconds: A batch that takes longer makes the server not ready.
        drain_delay: From SIGTERM, when readiness falls, to refusing connections.
        drain_seconds: What requests in flight have to finish then.
        token: What `Authorization: Bearer` must bring, but for health; None: nothing.
        certificate, key: PEM files for TLS; None: plain HTTP.
    """

    folder: Path = Path("saved_models")
    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = None
    runner: str = "auto"
    max_batch: int = 32
    max_wait: float = 0.0
    workers: int = 0
    queue_rows: int = 0
    queue_bytes: int = 256 * MIB
    max_body: int = 32 * MIB
    max_pixels: int = 50_000_000
    formats: tuple[str, ...] = ("jpeg", "png")
    max_connections: int = 1024
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    request_seconds: float = 30.0
    overload_status: int = 503
    retry_after: float = 1.0
    poll_seconds: float = 1.0
    hang_seconds: float = 60.0
    drain_delay: float = 5.0
    drain_seconds: float = 30.0
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The numbers of rows that are computed: 1, 2, 4, ... and `max_batch`; others are padded to the next one."""
        return (*(1 << power for power in range((self.max_batch - 1).bit_length())), self.max_batch)

    @property
    def most_queued_rows(self) -> int:
        """Rows that may wait, of every model."""
        return self.queue_rows or 4 * self.max_batch
