"""One line a request on standard error, and what else the server has to say, written by a thread of its own.

Serving never waits for whoever reads the lines: they are dropped when nobody takes them or the disk is full.
"""

import logging
import os
import stat
import sys
import threading
import time
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

MOST_LINES = 10_000  # that may wait to be written
SECONDS_BETWEEN_WRITES = 0.1


class RequestLine(NamedTuple):
    """A request that was answered.

    Args:
        time: Seconds since 1970.
        id: Of the request.
        method: Of HTTP.
        path: As it was sent, without what is behind "?".
        model: "" where it names none.
        status: Of HTTP.
        bytes: Of the body, as received and decompressed.
        milliseconds: From its header to the end of the answer.
        client: Its address.
    """

    time: float
    id: str
    method: str
    path: bytes
    model: str
    status: int
    bytes: int
    milliseconds: float
    client: str


class RequestLog(logging.Handler):
    """Writes lines to a file descriptor, in the background; also those of `logging`.

    Args:
        format: "json" or "text".
        requests: Whether requests are written, or only what `logging` brings.
        descriptor: Where to; standard error.
    """

    def __init__(self, format: str = "json", requests: bool = True, descriptor: int = 2) -> None:
        super().__init__()
        self._as_json, self._requests, self._descriptor = format == "json", requests, descriptor
        self._lines: deque[RequestLine | dict[str, Any]] = deque(maxlen=MOST_LINES)
        self._pending = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, name="log", daemon=True)
        self._thread.start()

    def request(self, line: RequestLine) -> None:
        """Write a request's line, later."""
        if self._requests:
            self._append(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Write what was logged, later."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a wrong format; logging is no reason to fail
            message = str(record.msg)
        message = message.encode(errors="replace").decode()
        line = {"time": record.created, "level": record.levelname.lower(), "message": message}
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        self._append(line)

    def close(self) -> None:
        """Write what waits, for a second at most."""
        self._closing.set()
        self._pending.set()
        self._thread.join(1.0)
        super().close()

    def _append(self, line: RequestLine | dict[str, Any]) -> None:
        self._lines.append(line)
        if not self._pending.is_set():
            self._pending.set()

    def _write_lines(self) -> None:
        while not (self._closing.is_set() and not self._lines):
            self._pending.wait()
            self._closing.wait(SECONDS_BETWEEN_WRITES)
            self._pending.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            self._write(b"".join(self._format(line) for line in lines))

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                time.sleep(SECONDS_BETWEEN_WRITES)
            except OSError:
                return  # the disk is full, or nobody reads any more

    def _format(self, line: RequestLine | dict[str, Any]) -> bytes:
        fields = line if isinstance(line, dict) else self._fields(line)
        moment = datetime.fromtimestamp(fields["time"], UTC)
        if self._as_json:
            fields = {**fields, "time": moment.isoformat(timespec="milliseconds")}
            return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        text = f"{moment:%H:%M:%S} " + (
            f"{fields['level']}: {fields['message']}\n{fields.get('traceback', '')}"
            if "message" in fields
            else "{method} {path} {status} {ms} ms {bytes} bytes {client} {id}\n".format(**fields)
        )
        return text.encode(errors="replace")

    @staticmethod
    def _fields(line: RequestLine) -> dict[str, Any]:
        return {
            "time": line.time,
            "id": line.id,
            "method": line.method,
            "path": line.path[:500].decode("latin-1"),
            "model": line.model[:100].encode(errors="replace").decode(),
            "status": line.status,
            "bytes": line.bytes,
            "ms": round(line.milliseconds, 2),
            "client": line.client,
        }


def never_wait_for_readers(descriptor: int = 2) -> None:
    """Let what nobody takes from a pipe be lost, also what libraries in C write to it.

    libjpeg says on standard error what is wrong with a picture: in a full pipe that would hold the thread for ever. The
    pipe is opened anew, so that others who write to it still wait. Elsewhere than on Linux nothing changes.
    """
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            anew = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
            os.dup2(anew, descriptor)
            os.close(anew)
    except OSError as error:
        logging.getLogger(__name__).debug("standard error stays as it is: %s", error)


def take_over_logging(log: RequestLog) -> None:
    """Send what Python's `logging` and `warnings` bring to the log: nothing else may wait for standard error."""
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [log]
    root.setLevel(logging.WARNING)
    logging.getLogger("apps.serve").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    for name in ("absl", "tensorflow"):
        if name in sys.modules:
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
