"""Fault 14: connections that are slow, idle, greedy, odd or too many are closed in time, and harm nobody else."""

import asyncio
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from wire import Wire, drip, read_all, read_answer

from apps.serve.receiving import MAX_HEADER
from apps.serve.settings import Settings

LARGE = 20_000_000


async def live(_: Request) -> Response:
    return PlainTextResponse("live")


async def large(_: Request) -> Response:
    return Response(bytes(LARGE))


async def slow(_: Request) -> Response:
    await asyncio.sleep(0.5)
    return PlainTextResponse("slow")


ROUTES = Route("/v2/health/live", live), Route("/large", large), Route("/slow", slow)
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /length HTTP/1.1\r\nHost: test\r\n"


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    folder = tmp_path_factory.mktemp("slow")
    with Wire(folder, *ROUTES, header_seconds=0.5, body_seconds=0.6, keep_alive_seconds=0.7) as wire:
        yield wire


@pytest.fixture(autouse=True)
def others_are_served(wire: Wire) -> Iterator[None]:
    """After each of these clients the next one is answered, and nothing is left open."""
    yield
    with wire.connect() as client:
        client.sendall(GET)
        assert read_answer(client) == (200, b"live")


@pytest.mark.parametrize(
    ("name", "first", "rest"),
    [
        ("idle", b"", []),
        ("half a header", POST + b"Content-Le", []),
        ("header, byte by byte", b"", [b"%c" % byte for byte in POST + b"X: " + b"y" * 500]),
        ("header, line by line", POST, [b"X-%d: y\r\n" % line for line in range(200)]),
        ("empty lines", b"", [b"\r\n"] * 200),
        ("body, byte by byte", POST + b"Content-Length: 5000\r\n\r\n", [b"a"] * 200),
        ("chunks, byte by byte", POST + b"Transfer-Encoding: chunked\r\n\r\n", [b"1\r\na\r\n"] * 200),
        ("trailer, line by line", POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", [b"x: y\r\n"] * 200),
        ("half a header after an answer", GET + b"GET /v2", []),
        ("body of what is answered", b"GET /v2/health/live HTTP/1.1\r\nContent-Length: 999\r\n\r\n", [b"a"] * 200),
        ("kept alive without a request", GET, []),
        ("kept alive by empty lines", GET, [b"\r\n"] * 200),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fault_14_slow_connection_is_closed_in_time(wire: Wire, name: str, first: bytes, rest: list[bytes]) -> None:
    with wire.connect() as client:
        client.sendall(first)
        seconds = drip(client, rest or [b""] * 200)
    assert 0.4 < seconds < 10


def test_fault_14_late_header_is_told(wire: Wire) -> None:
    answer = wire.exchange(POST)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "The header did not come within 0.5 s."}


@pytest.mark.parametrize(
    "header",
    [
        [b"X: " + b"y" * (MAX_HEADER + 1), b"\r\n\r\n"],
        [b"X: " + b"y" * (4 * MAX_HEADER)],
        [b"X: y\r\n" * (MAX_HEADER // 6 + 10), b"\r\n"],
        [b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * (4 * MAX_HEADER)],
        [b"Transfer-Encoding: chunked\r\n\r\n1;x=" + b"y" * (4 * MAX_HEADER)],
    ],
    ids=["one line", "without end", "many lines", "trailer", "chunk extension"],
)
def test_fault_14_header_over_64_kb_is_refused(wire: Wire, header: list[bytes]) -> None:
    with wire.connect() as client:
        try:
            for part in [POST, *header]:
                client.sendall(part)
        except OSError:
            pass  # refused before all was sent
        answer = read_all(client)
    assert not answer or answer.startswith(b"HTTP/1.1 431 ")  # no answer where the end came while sending


def test_fault_14_header_under_64_kb_is_accepted(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(
            POST + b"X: " + b"y" * (MAX_HEADER - 200) + b"\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100_000
        )
        assert read_answer(client) == (200, b"100000")


def test_fault_14_client_that_takes_no_answer_is_closed(wire: Wire) -> None:
    with wire.connect(receive_buffer=4096) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        time.sleep(2.5)
        assert len(read_all(client)) < LARGE


def test_fault_14_slow_answer_outlives_the_deadlines_of_receiving(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n" * 2 + b"GET /v2/health")  # and half a third one
        assert read_answer(client) == (200, b"slow")
        assert read_answer(client) == (200, b"slow")
        client.sendall(b"/live HTTP/1.1\r\n\r\n")
        assert read_answer(client) == (200, b"live")


def test_fault_14_http_1_0_and_pipelining_are_served(wire: Wire) -> None:
    old = wire.exchange(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200 ")
    assert old.endswith(b"live")
    post = POST + b"Content-Length: 3\r\n\r\nabc"
    several = wire.exchange(GET, post + GET, b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert several.count(b"HTTP/1.1 200 OK") == 4
    assert [part[:4] for part in several.split(b"\r\n\r\n")[1:]] == [b"live", b"3HTT", b"live", b"live"]


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET * HTTP/1.1\r\n\r\n"]
)
def test_fault_14_what_is_not_http_is_refused(wire: Wire, data: bytes) -> None:
    answer = wire.exchange(data)
    assert answer.split()[1] in (b"400", b"404")


def test_fault_14_upgrades_are_ignored(wire: Wire) -> None:
    with wire.connect() as client:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        for ending in (b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"):
            client.sendall(POST + upgrade + ending)
            assert read_answer(client) == (200, b"3")
    assert wire.exchange(b"CONNECT test:80 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")


def test_fault_14_one_connection_too_many_is_refused_but_health_is_answered(tmp_path: Path) -> None:
    with Wire(tmp_path, *ROUTES, max_connections=2, retry_after=3.0) as wire:
        with wire.connect() as one, wire.connect() as two:
            one.sendall(GET)
            assert read_answer(one) == (200, b"live")
            refused = wire.exchange(POST + b"Content-Length: 1\r\n\r\na")
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 3\r\n" in refused
            healthy = wire.exchange(GET)
            assert healthy.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in healthy
            start = time.monotonic()
            assert wire.exchange() == b""  # says nothing
            assert time.monotonic() - start < 8
            two.sendall(GET)
            assert read_answer(two) == (200, b"live")
        end, status = time.monotonic() + 10, 503
        while status != 200 and time.monotonic() < end:  # those that were refused hold no place
            with wire.connect() as three:
                three.sendall(POST + b"Content-Length: 1\r\n\r\na")
                status = read_answer(three)[0]
        assert status == 200


def test_https_is_served_with_a_certificate(tmp_path: Path, wire: Wire) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("There is no openssl.")
    with Wire(tmp_path, *ROUTES, certificate=certificate, key=key, header_seconds=0.5) as secure:
        trust = ssl.create_default_context(cafile=str(certificate))
        answer = httpx.post(f"https://127.0.0.1:{secure.port}/length", content=b"a" * 99, verify=trust)
        assert (answer.status_code, answer.text) == (200, "99")
        with trust.wrap_socket(secure.connect(), server_hostname="127.0.0.1") as client:
            client.sendall(POST)
            assert client.recv(99).startswith(b"HTTP/1.1 408 ")
    from apps.serve.server import make_config

    key.write_text("no key")
    with pytest.raises(ValueError, match=r"--certificate, --key: .*PEM files"):
        make_config(wire.application, Settings(certificate=certificate, key=key))
