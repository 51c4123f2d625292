"""One request and its answer: the body within its limits, the deadline, what is known of it, errors as JSON."""

import asyncio
import math
import zlib
from collections.abc import Awaitable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from apps.serve.errors import Code, Refusal, invalid
from apps.serve.settings import Settings

Answer = TypeVar("Answer")

WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
KEY = "kerascnn.exchange"
LONGEST_MESSAGE = 2000  # characters of an error: names that a client made up can be as long as its body


class Exchange:
    """What is known of a request while it is answered.

    Args:
        start: When its header had come, by the event loop's clock.
        id: Of the client or made here; the log, the answer and the client's message about an error have it.
    """

    __slots__ = ("api", "body", "code", "id", "model", "received", "start", "status")

    def __init__(self, start: float, id: str) -> None:
        self.start, self.id = start, id
        self.model = self.api = ""  # see `name_request`
        self.body: bytes | None = None  # decompressed
        self.received = 0  # bytes of the body that this request keeps in memory
        self.status = 0  # HTTP's, once the answer has begun
        self.code: Code | None = None  # why it was refused


def exchange_of(scope: Scope) -> Exchange:
    """What is known of the request; begun here where no `Gate` of application.py has done it."""
    found: Exchange | None = scope.get(KEY)
    if found is None:
        found = scope[KEY] = Exchange(asyncio.get_running_loop().time(), "")
    return found


def name_request(request: Request, model: str, api: str) -> None:
    """Tell the metrics and the log what is asked for; once, as soon as the route knows it.

    Args:
        request: It.
        model: As the client calls it, known or not.
        api: "Predict", "Classify", "Regress", "Infer", "GetModelStatus", "GetModelMetadata" and the like.
    """
    exchange = exchange_of(request.scope)
    exchange.model, exchange.api = model, api


async def read_body(request: Request) -> bytes:
    """The whole body, decompressed; read once, given again when asked again.

    Raises:
        Refusal: TOO_LARGE over the limit (known beforehand or not), INVALID_ARGUMENT for a damaged gzip body,
            TOO_SLOW for one that comes too slowly, UNAVAILABLE where the bodies of all requests are too much,
            CANCELLED when the client has left.
    """
    exchange = exchange_of(request.scope)
    if exchange.body is None:
        settings: Settings = request.app.state.settings
        declared, encoding = request.headers.get("content-length"), request.headers.get("content-encoding", "")
        if declared is not None and int(declared) > settings.max_body:
            raise _too_large(settings.max_body)
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", *WINDOWS):
            raise invalid(f"The Content-Encoding is {encoding[:40]!r}; gzip, deflate or none is expected.")
        try:
            async with asyncio.timeout_at(exchange.start + settings.body_seconds):
                body = await _receive(request, exchange, settings)
        except TimeoutError:
            raise Refusal(Code.TOO_SLOW, f"The body did not come within {settings.body_seconds:g} s.") from None
        if encoding in WINDOWS:
            body = await asyncio.to_thread(_decompress, body, WINDOWS[encoding], settings.max_body)
            _keep(request.app.state, exchange, len(body), settings)
        exchange.body = body
    return exchange.body


async def _receive(request: Request, exchange: Exchange, settings: Settings) -> bytes:
    parts, length = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(Code.CANCELLED, "The client has left.")
        part = message.get("body", b"")
        length += len(part)
        if length > settings.max_body:
            raise _too_large(settings.max_body)
        _keep(request.app.state, exchange, len(part), settings)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _keep(state: Any, exchange: Exchange, size: int, settings: Settings) -> None:
    """Count bytes that are in memory until the request ends, when `Gate` counts them off."""
    exchange.received += size
    state.received += size
    if state.received > settings.most_received and state.received > exchange.received:
        raise Refusal(Code.UNAVAILABLE, "The server has too many bytes of requests in memory.", settings.retry_after)


def _decompress(data: bytes, window: int, limit: int) -> bytes:
    if window == zlib.MAX_WBITS and data[:1] and data[0] & 15 != zlib.DEFLATED:
        window = -window  # some clients send a deflate body without zlib's two bytes in front
    machine = zlib.decompressobj(window)
    try:
        result = machine.decompress(data, limit + 1)
    except zlib.error:
        raise invalid("The compressed body is damaged.") from None
    if len(result) > limit:
        raise _too_large(limit)
    if not machine.eof:
        raise invalid("The compressed body is cut short.")
    if machine.unused_data:
        raise invalid("There is something behind the end of the compressed body.")
    return result


def _too_large(limit: int) -> Refusal:
    return Refusal(Code.TOO_LARGE, f"The body is larger than the {limit:,} bytes that are allowed.")


def deadline_of(request: Request) -> float:
    """When the answer must be there, by the event loop's clock."""
    settings: Settings = request.app.state.settings
    return exchange_of(request.scope).start + settings.request_seconds


async def while_connected(request: Request, answer: Awaitable[Answer]) -> Answer:
    """Wait for an answer as long as its client does, and no longer than the request's deadline.

    The body is to be read before.

    Raises:
        Refusal: CANCELLED when the client has left, DEADLINE_EXCEEDED; the awaitable is cancelled either way.
    """
    task = asyncio.current_task()
    left = False

    def leave(watcher: asyncio.Task[None]) -> None:
        nonlocal left
        if task is not None and not watcher.cancelled() and watcher.exception() is None:
            left = True
            task.cancel()

    watcher = asyncio.create_task(_disconnect(request.receive))
    watcher.add_done_callback(leave)
    timeout = asyncio.timeout_at(deadline_of(request))
    try:
        async with timeout:
            return await answer
    except asyncio.CancelledError:
        if left and task is not None and task.uncancel() == 0:
            raise Refusal(Code.CANCELLED, "The client has left.") from None
        raise
    except TimeoutError:
        if timeout.expired():
            raise Refusal(Code.DEADLINE_EXCEEDED, "The request was not answered in time.") from None
        raise
    finally:
        watcher.remove_done_callback(leave)
        watcher.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """`{"error": message}`, as all protocols here have it."""
    return Response(orjson.dumps({"error": message}), status, headers, "application/json")


def refusal_response(request: Request, refusal: Refusal) -> Response:
    """What the client of a refused request gets: status, message, and when another try is worth while."""
    settings: Settings = request.app.state.settings
    exchange_of(request.scope).code = refusal.code
    status, headers = refusal.code.http, {}
    if refusal.code is Code.UNAVAILABLE:
        status = settings.overload_status
    retry_after = refusal.retry_after
    if retry_after is None and refusal.code is Code.UNAVAILABLE:
        retry_after = settings.retry_after
    if retry_after is not None:
        headers["Retry-After"] = str(math.ceil(retry_after))
    if refusal.code is Code.TOO_SLOW:
        headers["Connection"] = "close"
    if refusal.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="kerascnn"'
    return error_response(status, refusal.message[:LONGEST_MESSAGE], headers)
