"""One request and its answer: the body within its limits, the deadline, errors in the protocol's own form."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from apps.serve.errors import Code, Refusal

Answer = TypeVar("Answer")


async def read_body(request: Request) -> bytes:
    """The whole body, decompressed; read once.

    Raises:
        Refusal: TOO_LARGE over the limit (known beforehand or not), INVALID_ARGUMENT for a damaged gzip body,
            DEADLINE_EXCEEDED for one that comes too slowly.
    """
    return await request.body()


def deadline_of(request: Request) -> float:
    """When the answer must be there, by the event loop's clock."""
    return asyncio.get_running_loop().time() + 30.0


async def while_connected(request: Request, answer: Awaitable[Answer]) -> Answer:
    """Wait for an answer as long as its client does, and no longer than the request's deadline.

    Raises:
        Refusal: CANCELLED when the client has left, DEADLINE_EXCEEDED; the awaitable is cancelled either way.
    """
    try:
        async with asyncio.timeout_at(deadline_of(request)):
            return await answer
    except TimeoutError:
        raise Refusal(Code.DEADLINE_EXCEEDED, "The request was not answered in time.") from None


def name_request(request: Request, model: str, api: str) -> None:
    """Tell the metrics and the log what is asked for."""
