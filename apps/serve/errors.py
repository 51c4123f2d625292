"""What a client is told when a request cannot be answered: TensorFlow Serving's codes, for REST and for gRPC."""

from enum import Enum


class Code(Enum):
    """Why a request is refused: (HTTP status, number of the gRPC status of that name).

    Source: TensorFlow Serving, model_servers/http_server.cc; TOO_LARGE and TOO_SLOW are ours, as a body's limits are.
    """

    CANCELLED = (499, 1)
    UNKNOWN = (500, 2)
    INVALID_ARGUMENT = (400, 3)
    DEADLINE_EXCEEDED = (504, 4)
    NOT_FOUND = (404, 5)
    ALREADY_EXISTS = (409, 6)
    PERMISSION_DENIED = (403, 7)
    RESOURCE_EXHAUSTED = (429, 8)
    FAILED_PRECONDITION = (400, 9)
    OUT_OF_RANGE = (400, 11)
    UNIMPLEMENTED = (501, 12)
    INTERNAL = (500, 13)
    UNAVAILABLE = (503, 14)
    UNAUTHENTICATED = (401, 16)
    TOO_LARGE = (413, 8)
    TOO_SLOW = (408, 4)

    @property
    def http(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def grpc(self) -> int:
        """The number of the gRPC status."""
        return self.value[1]


class Refusal(Exception):
    """A request that is not answered, with what its client is told.

    Args:
        code: Why.
        message: One or more sentences for the client; never a path of the server or a traceback.
        retry_after: Seconds after which another try is worth while; None where it never is.
    """

    def __init__(self, code: Code, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after = code, message, retry_after


def invalid(message: str) -> Refusal:
    """The client's mistake: 400, INVALID_ARGUMENT."""
    return Refusal(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> Refusal:
    """No such model, version or path: 404."""
    return Refusal(Code.NOT_FOUND, message)
