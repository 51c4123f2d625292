"""The web application: the protocols' routes behind the limits that hold for all of them."""

import asyncio
import hmac
import itertools
import logging
import re
import secrets
import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.serve import openapi, page, rest_v1, rest_v2
from apps.serve.batching import Workers
from apps.serve.errors import Code, Refusal
from apps.serve.exchange import KEY, Exchange, error_response, refusal_response
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository
from apps.serve.request_log import RequestLine, RequestLog
from apps.serve.settings import Settings

# What is answered without a token: whoever watches the server need not be able to use it.
# The pages ask for it themselves, and hold nothing of the models.
OPEN_PATHS = frozenset(("/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"))
SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CODE_OF_STATUS = {code.http: code for code in reversed(Code)}

logger = logging.getLogger(__name__)


def make_application(
    repository: Repository,
    workers: Workers,
    metrics: Metrics,
    settings: Settings,
    log: RequestLog | None = None,
) -> Starlette:
    """All routes of the server.

    `application.state` has `settings`, `metrics`, `loading` (until the first look at the folder is done; the server
    sets it), `draining` (set by SIGTERM), `received` (bytes of bodies in memory) and `ready()`, for the routes.
    """
    application = Starlette(
        routes=[
            *rest_v1.routes(repository),
            *rest_v2.routes(repository),
            *page.routes(repository),
            *openapi.routes(),
            *_routes(metrics),
        ],
        middleware=[Middleware(Gate, repository=repository, metrics=metrics, settings=settings, log=log)],
        exception_handlers={Refusal: _refused, HTTPException: _http_error},
    )
    application.router.redirect_slashes = False
    state = application.state
    state.settings, state.metrics, state.loading, state.draining, state.received = settings, metrics, False, False, 0
    state.ready = lambda: (
        not (state.draining or state.loading) and repository.ready() and workers.longest() < settings.hang_seconds
    )
    metrics.watch(repository, workers, state)
    return application


def _routes(metrics: Metrics) -> list[BaseRoute]:
    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    return [Route("/metrics", exposition), Route("/monitoring/prometheus/metrics", exposition)]


async def _refused(request: Request, refusal: Exception) -> Response:
    if not isinstance(refusal, Refusal):
        raise refusal
    return refusal_response(request, refusal)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    if error.status_code == 405:
        return error_response(405, f"{request.method} is not possible here, {headers.get('Allow')} is.", headers)
    if error.status_code == 404:
        return error_response(404, f"There is nothing at {request.url.path[:200]}.", headers)
    return error_response(error.status_code, error.detail, headers)


class Gate:
    """Stands before all routes: ids, the token, no page of another site, nothing unexpected told, everything counted.

    Args:
        app: What is behind it.
        repository: Knows which names of models are worth counting.
        metrics: Count the requests.
        settings: Have the token.
        log: Writes a line about each; None: nothing.
    """

    def __init__(
        self, app: ASGIApp, *, repository: Repository, metrics: Metrics, settings: Settings, log: RequestLog | None
    ) -> None:
        self._app, self._repository, self._metrics, self._log = app, repository, metrics, log
        self._token = None if settings.token is None else settings.token.encode()
        self._ids = map((secrets.token_hex(4) + "-{:x}").format, itertools.count())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop, state = asyncio.get_running_loop(), scope["app"].state
        header = dict(scope["headers"])
        sent_id = header.get(b"x-request-id", b"")
        begun = time.perf_counter()  # the event loop's own clock may have whole milliseconds alone, as uvloop's
        exchange = Exchange(loop.time(), sent_id.decode() if SANE_ID.fullmatch(sent_id) else next(self._ids))
        scope[KEY] = exchange

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", exchange.id.encode())]
                # A client that was not told to send its body need not, and the next request would be taken for it.
                if state.draining or (b"expect" in header and exchange.body is None):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            refusal = self._refusal(scope, header)
            if refusal is None:
                await self._app(scope, receive, answer)
            else:
                await refusal_response(Request(scope), refusal)(scope, receive, answer)
        except asyncio.CancelledError:
            if exchange.status or not state.draining:
                raise
            exchange.code = Code.UNAVAILABLE  # the time for what was in flight is over
            await error_response(503, "The server is going down.")(scope, receive, answer)
        except Exception:
            logger.exception("request %s: %s %s failed", exchange.id, scope["method"], scope["path"][:500])
            exchange.code = Code.INTERNAL
            if exchange.status:  # too late for another answer: the server closes the connection
                raise
            await error_response(500, f"Internal error. Request id {exchange.id}.")(scope, receive, answer)
        finally:
            state.received -= exchange.received
            self._count(scope, exchange, time.perf_counter() - begun)

    def _refusal(self, scope: Scope, header: dict[bytes, bytes]) -> Refusal | None:
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            given = _token(header.get(b"authorization", b""))
            if not hmac.compare_digest(given, self._token):
                return Refusal(Code.UNAUTHENTICATED, "A token is needed: `Authorization: Bearer TOKEN`.")
        elsewhere = header.get(b"sec-fetch-site") in (b"cross-site", b"same-site")  # another port is the same site
        if elsewhere and scope["method"] not in ("GET", "HEAD"):
            return Refusal(Code.PERMISSION_DENIED, "Pages of other sites may not use this server.")
        return None

    def _count(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        status = exchange.status or 499
        model, code = exchange.model, "OK"
        if status >= 400:
            fallback = Code.INTERNAL if status >= 500 else Code.INVALID_ARGUMENT
            code = (exchange.code or CODE_OF_STATUS.get(status, fallback)).name
            if model and model not in self._repository.names():
                model = ""
        self._metrics.request(model, "REST", exchange.api, code, seconds)
        if self._log is not None:
            client = scope.get("client")
            path = scope.get("raw_path") or scope["path"].encode(errors="replace")
            self._log.request(
                RequestLine(
                    time.time(),
                    exchange.id,
                    scope["method"],
                    path,
                    exchange.model,
                    status,
                    exchange.received,
                    1000 * seconds,
                    client[0] if client else "",
                )
            )


def _token(authorization: bytes) -> bytes:
    """The token of a header."""
    kind, _, value = authorization.partition(b" ")
    return value.strip() if kind.lower() == b"bearer" else b""
