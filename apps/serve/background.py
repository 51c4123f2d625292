"""Work that blocks, in a thread that neither a hanging disk nor a slow load can make the server wait for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def in_background(work: Callable[[], Result], name: str) -> "asyncio.Future[Result]":
    """The result of some work, which goes on in a thread of its own.

    Unlike `asyncio.to_thread`, the thread does not keep the process from ending, and work that never ends takes no
    place in a pool that others need.

    Args:
        work: Called without arguments; what it raises, the future raises.
        name: Of the thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def finish(result: Result | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, failure)

    Thread(target=run, name=name, daemon=True).start()
    return future
