"""Every limit and every choice of the server, with its default."""

import difflib
import math
from dataclasses import dataclass
from pathlib import Path

from apps.serve.runner import check_runner_name

MIB = 1 << 20
FORMATS = ("jpeg", "png", "gif", "bmp", "webp")
LOG_FORMATS = ("json", "text")


@dataclass(frozen=True)
class Settings:
    """What `kerascnn serve` can be told; times in seconds, sizes in bytes.

    Args:
        folder: saved_models/, holding NAME/VERSION/; one model's folder, holding VERSION/; or one SavedModel.
        host: Address to listen on; only this machine can reach the default.
        port: Of REST; 0 takes a free one.
        grpc_port: Of gRPC, 0 for a free one; None: no gRPC.
        runner: "tensorflow", "openvino", or "auto" for the fastest that agrees.
        exact: Compute in the precision of the export, never in bfloat16 or float16 because that is faster.
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
        body_seconds: From there to the end of the body; also what a client that takes nothing of its answer has.
        keep_alive_seconds: How long an idle connection stays open after an answer.
        request_seconds: From the end of the header to the answer; then 504.
        overload_status: What a full queue answers: 503, as TensorFlow Serving does, or 429.
        retry_after: Of a refusal.
        poll_seconds: How often the folder is looked at; 0: once, at the start.
        hang_seconds: A batch that takes longer makes the server not ready.
        drain_delay: From SIGTERM, when readiness falls, to refusing connections.
        drain_seconds: What requests in flight have to finish then.
        token: What `Authorization: Bearer` must bring, but for health; None: nothing.
        certificate, key: PEM files for TLS, the key in the certificate's file where it is None; None: plain HTTP.
        log_format: Of the lines on standard error: "json" or "text".
        log_requests: Whether each request gets a line.
    """

    folder: Path = Path("saved_models")
    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = None
    runner: str = "auto"
    exact: bool = False
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
    log_format: str = "json"
    log_requests: bool = True

    def check(self) -> None:
        """Refuse what cannot work, before anything is loaded.

        Raises:
            FileNotFoundError: The folder, the certificate or the key is missing.
            ValueError: Another setting is wrong; the message names its option.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"There is no folder {self.folder}; a folder with NAME/VERSION/saved_model.pb is expected "
                "(`kerascnn compete DATA` makes one)."
            )
        for name, path in (("certificate", self.certificate), ("key", self.key)):
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"--{name}: there is no file {path}.")
        if self.key is not None and self.certificate is None:
            raise ValueError("--key needs --certificate: the PEM file with the certificate that belongs to the key.")
        check_runner_name(self.runner)
        _one_of("--log-format", self.log_format, LOG_FORMATS)
        if not self.formats:
            raise ValueError(f"--format: at least one of {', '.join(FORMATS)} is needed.")
        for kind in self.formats:
            _one_of("--format", kind, FORMATS)
        if self.overload_status not in (503, 429):
            raise ValueError(f"--overload-status: 503 or 429 is expected, not {self.overload_status}.")
        for name in ("port", "grpc_port"):
            port = getattr(self, name)
            if port is not None and not 0 <= port <= 65535:
                raise ValueError(f"{_option(name)}: 0 to 65535 is expected, not {port}.")
        for name in ("max_batch", "queue_bytes", "max_body", "max_pixels", "max_connections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{_option(name)}: more than 0 is expected, not {getattr(self, name)}.")
        for name in (
            "workers",
            "queue_rows",
            "max_wait",
            "retry_after",
            "poll_seconds",
            "drain_delay",
            "drain_seconds",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{_option(name)}: 0 or more is expected, not {getattr(self, name)}.")
        for name in ("header_seconds", "body_seconds", "keep_alive_seconds", "request_seconds", "hang_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{_option(name)}: more than 0 seconds are expected, not {getattr(self, name)}.")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.split()):
            raise ValueError("The token must be of printable ASCII characters, and not empty.")
        if self.token is not None and " " in self.token:
            raise ValueError("The token must not have spaces: `Authorization: Bearer TOKEN` could not carry it.")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The numbers of rows that are computed: 1, 2, 4, ... and `max_batch`; others are padded to the next one."""
        return (*(1 << power for power in range((self.max_batch - 1).bit_length())), self.max_batch)

    @property
    def most_queued_rows(self) -> int:
        """Rows that may wait, of every model."""
        return self.queue_rows or 4 * self.max_batch

    @property
    def most_received(self) -> int:
        """Bytes of bodies that may be in memory, of all requests that are being read or answered."""
        return max(self.queue_bytes, self.max_body)


def _option(name: str) -> str:
    """How the command line calls a setting."""
    return {"queue_bytes": "--queue-mib", "max_body": "--max-body-mib"}.get(name, "--" + name.replace("_", "-"))


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{option}: one of {', '.join(choices)} is expected, not {value!r}{hint}")
