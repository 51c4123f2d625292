"""Requests to a server on this machine: from so many clients, each as soon as it has its answer, or by the clock."""

import asyncio
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ENDED = b"\r\n\r\n"
TICK = 0.002  # seconds between two looks at the clock in the open loop


@dataclass(frozen=True)
class Load:
    """What to ask, and how.

    Attributes:
        port: Of the server, on 127.0.0.1.
        requests: Whole HTTP/1.1 requests, asked in turn.
        clients: Connections, kept open.
        seconds: How long what comes back is counted.
        before: Seconds of the same before that, so that queues are as full as they will be.
        rate: Requests per second of all clients together, sent by the clock whether or not answers come (open loop);
            None: each client asks again when it has its answer (closed loop).
        most: Requests in all; None: as many as fit into `seconds`.
    """

    port: int
    requests: Sequence[bytes]
    clients: int
    seconds: float
    before: float = 0.0
    rate: float | None = None
    most: int | None = None


@dataclass
class Outcome:
    """What came back.

    Attributes:
        seconds: From when answers were counted to the last of them, or to the end.
        latencies: By HTTP status, seconds from when a request was due to its whole answer.
        broken: Connections that ended without an answer.
        asked: Requests sent.
        unsent: Requests of the open loop that found every connection busy.
    """

    seconds: float = 0.0
    latencies: dict[int, list[float]] = field(default_factory=dict)
    broken: int = 0
    asked: int = 0
    unsent: int = 0

    @property
    def goodput(self) -> float:
        """Answers 200 per second."""
        return len(self.latencies.get(200, ())) / self.seconds

    @property
    def statuses(self) -> Counter[int]:
        """How many answers of each status."""
        return Counter({status: len(times) for status, times in self.latencies.items()})

    def quantile(self, share: float, status: int = 200) -> float:
        """Seconds within which so large a share of the answers of a status came; NaN where there was none."""
        times = sorted(self.latencies.get(status, ()))
        return times[min(int(share * len(times)), len(times) - 1)] if times else float("nan")


def post(path: str, body: bytes, kind: str) -> bytes:
    """A whole POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask(load: Load) -> Outcome:
    """Ask a server; returns when the time is over and what is under way has been answered, or 10 s later."""
    import uvloop

    return uvloop.run(_ask(load))


class _Client(asyncio.Protocol):
    """One connection; `done(client, status)` is called with every whole answer, with 0 when the connection ends."""

    def __init__(self, done: Callable[["_Client", int], None]) -> None:
        self._done, self._received = done, bytearray()
        self._transport: Any = None
        self.due = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        self._transport = transport

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due then."""
        self.due, self.busy = due, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        self._received += data
        head = self._received.find(ENDED)
        if head < 0:
            return
        header = bytes(self._received[:head]).lower()
        place = header.find(b"content-length:")
        length = int(header[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(self._received) >= head + len(ENDED) + length:
            status = int(header[9:12])
            self._received.clear()
            self.busy = False
            self._done(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        """Ended, by the server or by `close`."""
        if self._transport is not None:
            self._transport = None
            self._done(self, 0)

    def close(self) -> None:
        """End it without a word."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


async def _ask(load: Load) -> Outcome:
    loop, outcome = asyncio.get_running_loop(), Outcome()
    idle: deque[_Client] = deque()
    sent = 0

    def send(client: _Client, due: float) -> None:
        nonlocal sent
        client.ask(load.requests[sent % len(load.requests)], due)
        sent += 1

    def done(client: _Client, status: int) -> None:
        now = time.perf_counter()
        if status == 0:
            outcome.broken += client.busy
            client.busy = False
            return
        if counted <= now <= end:
            outcome.latencies.setdefault(status, []).append(now - client.due)
        if load.rate is None and now < end and (load.most is None or sent < load.most):
            send(client, now)
        else:
            idle.append(client)

    counted = end = float("inf")
    clients = [
        (await loop.create_connection(lambda: _Client(done), "127.0.0.1", load.port))[1] for _ in range(load.clients)
    ]
    start = time.perf_counter()
    counted = start + load.before
    end = counted + load.seconds
    if load.rate is None:
        for client in clients if load.most is None else clients[: load.most]:
            send(client, start)
        while (now := time.perf_counter()) < end and any(client.busy for client in clients):
            await asyncio.sleep(min(0.02, end - now))
    else:
        idle.extend(clients)
        asked, total = 0, round((load.before + load.seconds) * load.rate)
        while asked < total:
            due = min(int((time.perf_counter() - start) * load.rate), total)
            for number in range(asked, due):
                if idle:
                    send(idle.popleft(), start + number / load.rate)
                else:
                    outcome.unsent += 1
            asked = due
            await asyncio.sleep(TICK)
    outcome.asked, outcome.seconds = sent, min(time.perf_counter(), end) - counted
    for _ in range(500):  # what is under way has 10 seconds
        if not any(client.busy for client in clients):
            break
        await asyncio.sleep(0.02)
    for client in clients:
        client.close()
    return outcome


def median_of(outcomes: Sequence[Outcome], measure: Callable[[Outcome], float]) -> float:
    """The median over several measurements."""
    return statistics.median(map(measure, outcomes))
