"""Call a function in a fresh process: what it breaks, or does not give back, ends with it."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

_told: Connection | None = None  # of a process that was made here, to the one that made it


class DiedError(Exception):
    """The process ended without a result and without an error of Python's.

    Attributes:
        code: Its exit code, negative for a signal.
        noted: What it noted last.
    """

    def __init__(self, code: int | None, noted: Any) -> None:
        super().__init__(f"exit code {code}")
        self.code, self.noted = code, noted


def call_in_new_process(function: Callable[..., Any], *arguments: Any, debug: bool = False) -> Any:
    """`function(*arguments)`, called in a new process with this one's environment; its result, or its error raised.

    Ctrl-C is passed on to it. What libraries not written in Python print is dropped unless `debug`. The process ends
    when this one does.

    Raises:
        DiedError: It was killed, or ended itself.
    """
    context = multiprocessing.get_context("spawn")
    answer, told = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(told, debug, function, arguments))
    process.start()
    told.close()
    kind: str = "note"
    value: Any = None
    noted: Any = None
    while kind == "note":
        noted = value
        try:
            kind, value = answer.recv()
        except KeyboardInterrupt:
            kind, value = "note", noted
            os.kill(process.pid or 0, signal.SIGINT)
        except EOFError:
            process.join()
            raise DiedError(process.exitcode, noted) from None
    if kind == "error":
        process.kill()  # what it waits for at its end will not come
        process.join()
        raise value
    process.join()
    return value


def note(value: Any) -> None:
    """Tell the process that made this one how far it is; nothing in others."""
    if _told is not None:
        _told.send(("note", value))


def _call(told: Connection, debug: bool, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _told
    _told = told
    os.setpgid(0, 0)  # a terminal's Ctrl-C comes by way of the other process, once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not debug:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
        for number in (1, 2):
            os.dup2(nowhere, number)
    try:
        answer: tuple[str, Any] = "result", function(*arguments)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some errors hold what no other process can have
            error = RuntimeError(f"{type(error).__name__}: {error}")
        answer = "error", error
    with suppress(BrokenPipeError):
        told.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
