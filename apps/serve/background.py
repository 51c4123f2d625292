"""Work that blocks, in a thread that neither a hanging disk nor a slow load can make the server wait for."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")

COMPUTING, LOADING = 5, 10  # niceness: 0 is the event loop's, 19 the most patient


def step_behind(niceness: int) -> None:
    """Let threads of a lower niceness go before this one and all that it starts; where the system can do that (Linux).

    The event loop has to answer within milliseconds, above all that there is no room; models compute for longer than
    that with more threads than there are cores, and a load can wait for both.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))


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
        step_behind(LOADING)
        try:
            result = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
