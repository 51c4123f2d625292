"""Call a function in a fresh process: what it breaks, or does not give back, ends with it."""

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class DiedError(Exception):
    """The process ended without a result and without an error of Python's."""


def call_in_new_process(function: Callable[..., Any], *arguments: Any, debug: bool = False) -> Any:
    """`function(*arguments)`, called in a new process with this one's environment; its result, or its error raised.

    What libraries not written in Python print on standard error is dropped unless `debug`. The process ends when this
    one does.

    Raises:
        DiedError: It was killed, or ended itself.
    """
    context = multiprocessing.get_context("spawn")
    answer, told = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(told, debug, function, arguments))
    process.start()
    told.close()
    try:
        good, value = answer.recv()
    except EOFError:
        process.join()
        raise DiedError(f"exit code {process.exitcode}") from None
    except BaseException:  # Ctrl-C reaches both: let it say what is kept
        process.join()
        raise
    if not good:
        process.kill()  # what it waits for at its end will not come
    process.join()
    if not good:
        raise value
    return value


def _call(told: Connection, debug: bool, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not debug:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
    try:
        answer: tuple[bool, Any] = True, function(*arguments)
    except BaseException as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some errors hold what no other process can have
            error = RuntimeError(f"{type(error).__name__}: {error}")
        answer = False, error
    told.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
