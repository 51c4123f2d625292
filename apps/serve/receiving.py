"""HTTP from strangers: a connection that is slow, idle, greedy or one too many is closed in time.

uvicorn's own protocol has a time limit for what is idle after an answer, and none for a header that never ends.
"""

import asyncio
import math
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from apps.serve.settings import Settings

MAX_HEADER = 64 << 10  # bytes of a request's first line and header
HEALTH = b"GET /v2/health/"
REFUSE_SECONDS = 1.0  # how long a connection that is one too many has to say that it only asks for health


class Receiving(HttpToolsProtocol):
    """One connection.

    Args:
        settings: Times and limits.
        keywords: uvicorn's.
    """

    def __init__(self, settings: Settings, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._settings = settings
        self._surplus = False  # more connections are open than allowed
        self._header_timer: asyncio.TimerHandle | None = None  # runs while the rest of a header is waited for
        self._stalled_timer: asyncio.TimerHandle | None = None  # runs while the client does not take its answer
        self._upgrading = False  # the header asks for another protocol
        self._unparsed = 0  # bytes since the parser last had a whole header or a part of a body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a header; refuse where too many are connected."""
        self._surplus = len(self.connections) >= self._settings.max_connections
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._surplus:
            self.connections.discard(self)
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_header_timer()
        self._stop_stalled_timer()

    def data_received(self, data: bytes) -> None:
        """Parse, unless the connection is one too many; health is answered even then."""
        if self.transport.is_closing():
            return
        if self._surplus and not data.startswith(HEALTH):
            self._refuse(503, "There are too many connections.", self._settings.retry_after)
            return
        self._unparsed += len(data)
        self._unset_keepalive_if_required()
        while data and not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("")
                break
        if self.transport.is_closing():
            return
        if self._unparsed > MAX_HEADER:
            self._refuse(431, f"The header is larger than {MAX_HEADER:,} bytes.")
        elif self._idle and self._header_timer is None:
            self._wait_for_header()

    def on_headers_complete(self) -> None:
        """Start the request."""
        if self._unparsed > MAX_HEADER:  # or it came in one piece with the body
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEADER:
                raise ValueError("The header is too large.")  # httptools passes it on as its own
        self._unparsed = 0
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            return
        self._stop_header_timer()
        super().on_headers_complete()
        if self._surplus:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come."""
        self._unparsed = 0
        if not self._upgrading:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is handed to the operating system, or waits for a client that does not take it."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.pause_writing()

    def pause_writing(self) -> None:
        """The client does not take its answer; it has as long as it has for sending a body."""
        super().pause_writing()
        if self._stalled_timer is None:
            self._stalled_timer = self.loop.call_later(self._settings.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client takes its answer."""
        super().resume_writing()
        self._stop_stalled_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close; at once where even the last answer has not been taken."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        if self._unparsed > MAX_HEADER:
            self._refuse(431, f"The header is larger than {MAX_HEADER:,} bytes.")
        else:
            self._refuse(400, "This is not a valid HTTP request.")

    def _head_without_upgrade(self) -> bytes:
        """The request's head again, for a new parser: httptools takes what follows a wish for HTTP/2 for HTTP/2.

        Java's client, for one, asks for it with every first request, and sends its body in HTTP/1.1 nevertheless.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, "This server is no proxy.")
            return b""
        version = self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        lines = [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([b"%s %s HTTP/%s" % (method, self.url, version), *lines, b"", b""])

    @property
    def _idle(self) -> bool:
        """Whether there is no request to be answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_header(self) -> None:
        seconds = self._settings.header_seconds
        if self._surplus:
            seconds = min(seconds, REFUSE_SECONDS)
        self._header_timer = self.loop.call_later(seconds, self._header_is_late)

    def _header_is_late(self) -> None:
        self._header_timer = None
        if self._idle and not self.transport.is_closing():
            if self._unparsed:
                self._refuse(408, f"The header did not come within {self._settings.header_seconds:g} s.")
            else:
                self.transport.close()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_stalled_timer(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None

    def _refuse(self, status: int, message: str, retry_after: float | None = None) -> None:
        """Answer without the application, and close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = orjson.dumps({"error": message})
        lines = [b"content-type: application/json", b"connection: close", b"content-length: %d" % len(body)]
        if retry_after is not None:
            lines.append(b"retry-after: %d" % math.ceil(retry_after))
        self.transport.write(STATUS_LINE[status] + b"\r\n".join([*lines, b"", body]))
        self.transport.close()
