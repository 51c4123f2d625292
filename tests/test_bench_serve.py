"""The load generator counts what it asks and what comes back, so that the benchmark's figures mean what they say."""

import contextlib
import itertools
import math
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apps.load_generator import Load, Outcome, ask, post


@contextmanager
def answering(answer: Callable[[int], bytes]) -> Iterator[int]:
    """A server whose n-th request is answered by `answer(n)`, b"" closes the connection; yields its port."""
    numbers = itertools.count(1)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while header := b"".join(iter(self.rfile.readline, b"\r\n")):
                self.rfile.read(int(header.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                if not (data := answer(next(numbers))):
                    return
                for part in (data[:10], data[10:]):  # as the network may deliver it
                    self.wfile.write(part)

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def said(status: int) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\nbody" % status


REQUESTS = [post("/a", b"12345", "text/plain"), post("/b", b"1", "text/plain")]


def test_every_answer_of_the_closed_loop_is_counted_with_its_status() -> None:
    with answering(lambda number: said(503 if number % 5 == 0 else 200)) as port:
        outcome = ask(Load(port, REQUESTS, clients=3, seconds=30.0, most=50))
    assert outcome.statuses == {200: 40, 503: 10}
    assert outcome.asked == 50
    assert outcome.broken == outcome.unsent == 0
    assert 0 < outcome.quantile(0.5) <= outcome.quantile(0.99) < 10


def test_connection_that_ends_without_an_answer_counts_as_broken() -> None:
    with answering(lambda number: b"" if number == 2 else said(200)) as port:
        outcome = ask(Load(port, REQUESTS, clients=1, seconds=0.5))
    assert outcome.statuses == {200: 1}
    assert outcome.broken == 1


def test_open_loop_asks_by_the_clock_whether_or_not_answers_come() -> None:
    with answering(lambda number: said(200)) as port:
        outcome = ask(Load(port, REQUESTS, clients=50, seconds=1.0, rate=100.0))
    assert outcome.asked + outcome.unsent == 100
    assert set(outcome.statuses) == {200}
    with answering(lambda number: time.sleep(1) or said(200)) as port:  # which comes after the end
        outcome = ask(Load(port, REQUESTS, clients=5, seconds=0.5, rate=100.0))
    assert outcome.statuses == {}
    assert (outcome.asked, outcome.unsent) == (5, 45)


def test_quantiles_and_goodput_by_hand() -> None:
    outcome = Outcome(2.0, {200: [0.4, 0.1, 0.3, 0.2], 503: [0.01]})
    assert outcome.goodput == 2.0
    assert [outcome.quantile(share) for share in (0.0, 0.5, 0.75, 1.0)] == [0.1, 0.3, 0.4, 0.4]
    assert outcome.quantile(0.99, 503) == 0.01
    assert math.isnan(outcome.quantile(0.5, 504))
