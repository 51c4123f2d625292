"""One attempt to load a version: the version, or why there is none in words for people."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tensorflow.core.protobuf import error_codes_pb2

from apps.serve.errors import Refusal
from apps.serve.servable import Servable

LOG = logging.getLogger(__name__)
SWITCH = 0.0005  # seconds between two threads' turns during a load: requests wait 41 instead of 253 ms at most
PASSING = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED"}
KINDS = {
    FileNotFoundError: "NOT_FOUND",
    PermissionError: "PERMISSION_DENIED",
    MemoryError: "RESOURCE_EXHAUSTED",
    ValueError: "INVALID_ARGUMENT",
    NotImplementedError: "UNIMPLEMENTED",
}


@dataclass(frozen=True)
class Failure:
    """Why a version could not be loaded.

    Args:
        code: TensorFlow's name of the kind of error.
        message: For people; without paths of the server.
        passing: Whether it may pass without a change of the files, as a full memory or an unreachable disk.
    """

    code: str
    message: str
    passing: bool = False


def try_load(load: Callable[[Path, str, int], Servable], folder: Path, name: str, version: int) -> Servable | Failure:
    """A loaded version, or why there is none; requests get their turns meanwhile."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        return load(folder, name, version)
    except BaseException as error:
        LOG.debug("%s version %d", name, version, exc_info=True)
        return _failure(error, folder, f"{name}/{version}")
    finally:
        sys.setswitchinterval(interval)


def _failure(error: BaseException, folder: Path, shown: str) -> Failure:
    """What went wrong, in one line, with the version's folder under the name that clients know."""
    code = "UNKNOWN"
    number = getattr(error, "error_code", None)
    if isinstance(error, Refusal):
        code = error.code.name
    elif isinstance(number, int):  # of TensorFlow
        code = error_codes_pb2.Code.Name(number)
    else:
        for kind, name in KINDS.items():
            if isinstance(error, kind):
                code = name
                break
    message = str(getattr(error, "message", error)).strip() or type(error).__name__
    for path in sorted({str(folder), str(folder.resolve())}, key=len, reverse=True):
        message = message.replace(path, shown)
    passing = code in PASSING or (isinstance(error, OSError) and not isinstance(error, FileNotFoundError))
    return Failure(code, message.splitlines()[0][:500], passing)
