"""What the server lets in, and what it says to the rest: bodies, tokens, deadlines, errors, settings."""

import asyncio
import gzip
import json
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from wire import Wire, ask, bare_application, log_to_file, read_answer

from apps.serve.errors import Code, Refusal
from apps.serve.exchange import while_connected
from apps.serve.settings import Settings

BODY = 100_000
cancelled: list[str] = []


async def sleep(request: Request) -> Response:
    """Answers in 20 seconds, unless it is cancelled."""
    try:
        await while_connected(request, asyncio.sleep(20))
    except Refusal as refusal:
        cancelled.append(refusal.code.name)
        raise
    return PlainTextResponse("slept")


async def fail(_: Request) -> Response:
    raise RuntimeError("secret of the server")


async def overloaded(_: Request) -> Response:
    raise Refusal(Code.UNAVAILABLE, "The queue is full.", 1.5)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    routes = Route("/sleep", sleep, methods=["POST"]), Route("/fail", fail)
    folder = tmp_path_factory.mktemp("limits")
    with Wire(folder, *routes, max_body=BODY, body_seconds=1.0, request_seconds=1.5) as wire:
        yield wire


def head(path: str = "/length", *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode()


def test_body_is_read_once_and_given_again(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(head("/length", "Content-Length: 3") + b"abc")
        assert read_answer(client) == (200, b"3")


def test_fault_10_declared_body_over_the_limit_is_refused_before_it_is_sent(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(head("/length", f"Content-Length: {BODY + 1}", "Expect: 100-continue"))
        status, body = read_answer(client)
    assert (status, json.loads(body)) == (413, {"error": "The body is larger than the 100,000 bytes that are allowed."})


def test_fault_10_chunked_body_over_the_limit_is_refused_while_it_comes(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(head("/length", "Transfer-Encoding: chunked"))
        client.sendall(b"%x\r\n" % (BODY + 1) + b"a" * (BODY + 1))  # and no end
        assert read_answer(client)[0] == 413


def test_fault_10_many_tiny_chunks_are_one_body(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(head("/length", "Transfer-Encoding: chunked") + b"1\r\na\r\n" * 65_537 + b"0\r\n\r\n")
        assert read_answer(client) == (200, b"65537")


def packed(data: bytes, window: int) -> bytes:
    machine = zlib.compressobj(9, zlib.DEFLATED, window)
    return machine.compress(data) + machine.flush()


@pytest.mark.parametrize(
    ("encoding", "body", "status", "answer"),
    [
        ("gzip", gzip.compress(b"a" * BODY, mtime=0), 200, str(BODY)),
        ("X-GZIP", gzip.compress(b"abc", mtime=0), 200, "3"),
        ("deflate", packed(b"abc", 15), 200, "3"),
        ("deflate", packed(b"abc", -15), 200, "3"),
        ("identity", b"abc", 200, "3"),
        ("gzip", gzip.compress(b"a" * (BODY + 1), mtime=0), 413, "larger"),
        ("gzip", gzip.compress(b"a" * 50_000_000, mtime=0), 413, "larger"),
        ("gzip", gzip.compress(b"abc" * 99, mtime=0)[:-9], 400, "cut short"),
        ("gzip", b"not gzip", 400, "damaged"),
        ("gzip", b"", 400, "cut short"),
        ("gzip", gzip.compress(b"abc", mtime=0) * 2, 400, "behind the end"),
        ("br", b"abc", 400, "'br'"),
    ],
)
def test_fault_10_compressed_bodies_keep_the_limit(
    tmp_path: Path, encoding: str, body: bytes, status: int, answer: str
) -> None:
    application, _ = bare_application(tmp_path, max_body=BODY)
    given = ask(application, "POST", "/length", content=body, headers={"Content-Encoding": encoding})
    assert given.status_code == status
    assert answer in given.text


def test_bodies_of_all_requests_together_are_limited(tmp_path: Path) -> None:
    application, settings = bare_application(tmp_path, max_body=1000, queue_bytes=1500)
    assert settings.most_received == 1500
    application.state.received = 1000  # of other requests
    refused = ask(application, "POST", "/length", content=b"a" * 600)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert ask(application, "POST", "/length", content=b"a" * 500).text == "500"
    assert application.state.received == 1000


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: -5"],
        ["Content-Length: five"],
        ["Content-Length: 99999999999999999999999"],
        ["Content-Length: 3", "Content-Length: 4"],
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
    ],
)
def test_fault_11_content_length_that_is_no_length_is_refused(wire: Wire, lines: list[str]) -> None:
    answer = wire.exchange(head("/length", *lines) + b"abc")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "This is not a valid HTTP request."}


def test_fault_11_content_length_below_the_body_answers_what_is_whole_and_refuses_the_rest(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(head("/length", "Content-Length: 2") + b"ab")
        assert read_answer(client) == (200, b"2")
        client.sendall(b"cdefgh\r\n\r\n")
        assert read_answer(client)[0] == 400


def test_fault_11_content_length_above_the_body_is_refused_when_the_time_is_over(wire: Wire) -> None:
    answer = wire.exchange(head("/length", "Content-Length: 5") + b"abc")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert b"The body did not come within 1 s." in answer


def test_fault_18_deadline_is_504_and_cancels_the_answer(wire: Wire) -> None:
    cancelled.clear()
    with wire.connect() as client:
        client.sendall(head("/sleep", "Content-Length: 0"))
        status, body = read_answer(client)
        assert (status, json.loads(body)) == (504, {"error": "The request was not answered in time."})
        client.sendall(head("/length", "Content-Length: 1") + b"a")  # the connection is still good
        assert read_answer(client) == (200, b"1")
    assert cancelled == ["DEADLINE_EXCEEDED"]


def test_fault_15_answer_is_cancelled_when_the_client_leaves(tmp_path: Path) -> None:
    cancelled.clear()
    with Wire(tmp_path, Route("/sleep", sleep, methods=["POST"])) as wire:
        with wire.connect() as client:
            client.sendall(head("/sleep", "Content-Length: 2") + b"ab")
            time.sleep(0.2)
        end = time.monotonic() + 10
        while not cancelled and time.monotonic() < end:
            time.sleep(0.01)
        assert cancelled == ["CANCELLED"]
        with wire.connect() as client:
            client.sendall(head("/length", "Content-Length: 1") + b"a")
            assert read_answer(client) == (200, b"1")


@pytest.mark.parametrize(("settings", "status"), [({}, 503), ({"overload_status": 429}, 429)])
def test_fault_17_full_queue_is_told_with_the_time_to_wait(
    tmp_path: Path, settings: dict[str, Any], status: int
) -> None:
    application, _ = bare_application(tmp_path, Route("/full", overloaded), **settings)
    answer = ask(application, "GET", "/full")
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "2")
    assert answer.json() == {"error": "The queue is full."}


def test_fault_19_readiness_falls_when_a_batch_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = [0.0]
    monkeypatch.setattr("apps.serve.batching.Workers.longest", lambda _: hanging[0])
    monkeypatch.setattr("apps.serve.repository.Repository.ready", lambda _: True)
    application, _ = bare_application(tmp_path, hang_seconds=5.0)
    assert application.state.ready()
    hanging[0] = 6.0
    assert not application.state.ready()
    hanging[0] = 0.0
    assert application.state.ready()


def test_unexpected_error_is_told_by_its_id_alone_and_logged_with_its_place(tmp_path: Path) -> None:
    import logging

    with log_to_file(tmp_path / "log") as log:
        application, _ = bare_application(tmp_path, Route("/fail", fail), log=log)
        logger = logging.getLogger("apps.serve")
        logger.addHandler(log)
        try:
            answer = ask(application, "GET", "/fail", headers={"X-Request-Id": "mine-1"})
        finally:
            logger.removeHandler(log)
        assert ask(application, "POST", "/length", content=b"a").text == "1"
    assert (answer.status_code, answer.json()) == (500, {"error": "Internal error. Request id mine-1."})
    logged = (tmp_path / "log").read_text()
    assert "request mine-1" in logged
    assert "secret of the server" in logged
    assert "test_serve_limits.py" in logged


def test_unexpected_error_keeps_the_connection(wire: Wire) -> None:
    with wire.connect() as client:
        client.sendall(b"GET /fail HTTP/1.1\r\nHost: test\r\n\r\n")
        status, body = read_answer(client)
        assert status == 500
        assert re.fullmatch(rb'\{"error":"Internal error. Request id [0-9a-f]+-[0-9a-f]+."\}', body)
        client.sendall(head("/length", "Content-Length: 1") + b"a")
        assert read_answer(client) == (200, b"1")


def test_request_ids_are_kept_when_they_are_sane(tmp_path: Path) -> None:
    application, _ = bare_application(tmp_path)

    def id_of(sent: str) -> str:
        return ask(application, "GET", "/metrics", headers={"X-Request-Id": sent}).headers["x-request-id"]

    assert id_of("A.b_c-9") == "A.b_c-9"
    for bad in ("", "a b", "x" * 65, 'a"b'):
        assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]+", id_of(bad))
    assert id_of("") != id_of("")


def test_fault_14_wrong_methods_and_paths_are_told_as_json(tmp_path: Path) -> None:
    application, _ = bare_application(tmp_path)
    missing, wrong = ask(application, "GET", "/nothing/here"), ask(application, "GET", "/length")
    assert (missing.status_code, missing.json()) == (404, {"error": "There is nothing at /nothing/here."})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json() == {"error": "GET is not possible here, POST is."}
    asked, empty = ask(application, "OPTIONS", "/length"), ask(application, "HEAD", "/metrics")
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, "POST", b"")
    assert (empty.status_code, empty.content) == (200, b"")
    assert int(empty.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 401),
        ("Bearer secret-1", 200),
        ("bearer  secret-1 ", 200),
        ("Bearer secret-2", 401),
        ("Bearer", 401),
        ("Basic YW55OnNlY3JldC0x", 401),  # any:secret-1
        ("Digest secret-1", 401),
    ],
)
def test_token_is_needed_for_everything_but_health(tmp_path: Path, sent: str | None, status: int) -> None:
    async def healthy(_: Request) -> Response:
        return Response()

    application, _ = bare_application(tmp_path, Route("/v2/health/ready", healthy), token="secret-1")
    headers = {} if sent is None else {"Authorization": sent}
    answer = ask(application, "GET", "/metrics", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert "Bearer" in answer.headers["www-authenticate"]
        assert "secret-1" not in answer.text
    assert ask(application, "GET", "/v2/health/ready").status_code == 200


def test_pages_of_other_sites_cannot_post(tmp_path: Path) -> None:
    application, _ = bare_application(tmp_path)
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        answer = ask(application, "POST", "/length", content=b"a", headers={"Sec-Fetch-Site": site})
        assert answer.status_code == status


def test_bodies_in_memory_are_counted_off_when_a_client_leaves(wire: Wire) -> None:
    for _ in range(3):
        with wire.connect() as client:
            client.sendall(head("/length", "Content-Length: 9") + b"abc")
    end = time.monotonic() + 10
    while wire.application.state.received and time.monotonic() < end:
        time.sleep(0.01)
    assert wire.application.state.received == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"folder": Path("/nowhere/models")}, "There is no folder /nowhere/models"),
        ({"runner": "openvin"}, 'There is no runner "openvin". Did you mean openvino?'),
        ({"formats": ("jpeg", "tiff")}, "--format: one of jpeg, png, gif, bmp, webp is expected, not 'tiff'"),
        ({"formats": ()}, "at least one of"),
        ({"overload_status": 500}, "--overload-status: 503 or 429 is expected, not 500"),
        ({"max_batch": 0}, "--max-batch: more than 0 is expected, not 0"),
        ({"max_body": 0}, "--max-body-mib"),
        ({"header_seconds": 0.0}, "--header-seconds: more than 0 seconds"),
        ({"request_seconds": float("nan")}, "--request-seconds"),
        ({"drain_delay": float("inf")}, "--drain-delay"),
        ({"port": 70000}, "--port: 0 to 65535"),
        ({"token": ""}, "not empty"),
        ({"token": "a b"}, "spaces"),
        ({"token": "ä"}, "ASCII"),
        ({"key": Path(__file__)}, "--key needs --certificate"),
        ({"certificate": Path("/nowhere.pem")}, "--certificate: there is no file"),
    ],
)
def test_wrong_settings_are_refused_by_their_option(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    Settings(tmp_path).check()
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(text)):
        Settings(**{"folder": tmp_path, **change}).check()


def test_command_refuses_what_cannot_work_in_one_line(
    tmp_path: Path, run_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run_here("serve", "missing")
    assert missing.returncode == 2
    assert missing.stderr.startswith("kerascnn: error: There is no folder missing")
    (tmp_path / "models").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = run_here("serve", "models", "--port", port)
    assert (busy.returncode, busy.stdout) == (2, "")
    assert f"127.0.0.1, port {port}, cannot be listened on: Address already in use. " in busy.stderr
    assert "--port" in busy.stderr
    assert busy.stderr.count("\n") == 1
    lost = run_here("serve", "models", "--port", 0, "--token-file", "lost")
    assert (lost.returncode, lost.stderr.count("\n")) == (2, 1)
    monkeypatch.setenv("KERASCNN_TOKEN", "two words")
    assert "spaces" in run_here("serve", "models", "--port", 0).stderr


@pytest.mark.parametrize(
    ("options", "terminal", "format"),
    [((), True, "text"), ((), False, "json"), (("--log-format", "json"), True, "json")],
)
def test_log_is_text_for_a_person_at_a_terminal_and_json_for_programs(
    run_here: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    terminal: bool,
    format: str,
) -> None:
    told: list[Settings] = []
    monkeypatch.setattr("apps.serve.server.serve", told.append)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert run_here("serve", ".", *options).returncode == 0
    assert [settings.log_format for settings in told] == [format]


def test_every_option_of_the_command_has_a_help_text() -> None:
    import typer

    from apps.cli import app

    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    assert len(command.params) > 25
    assert [option.name for option in command.params if not option.help] == []


def test_answers_of_the_same_application_without_a_socket_and_with_one_agree(wire: Wire, tmp_path: Path) -> None:
    application, _ = bare_application(tmp_path, max_body=BODY)
    inside = ask(application, "POST", "/length", content=b"abc")
    outside = httpx.post(f"http://127.0.0.1:{wire.port}/length", content=b"abc")
    assert (inside.status_code, inside.text) == (outside.status_code, outside.text) == (200, "3")


def test_connection_is_closed_where_a_body_that_was_not_asked_for_may_never_come(wire: Wire) -> None:
    """Apache's client, for one, goes on with its next request, which would be taken for the body."""
    with wire.connect() as client:
        client.sendall(head("/nowhere", "Content-Length: 3", "Expect: 100-continue"))
        assert read_answer(client)[0] == 404
        assert client.recv(1) == b""
    with wire.connect() as client:
        client.sendall(head("/length", "Content-Length: 3", "Expect: 100-continue"))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_answer(client) == (200, b"3")
        client.sendall(head("/length", "Content-Length: 3") + b"abc")
        assert read_answer(client) == (200, b"3")


def test_errors_repeat_no_more_than_a_little_of_a_request(tmp_path: Path) -> None:
    async def refuse(request: Request) -> Response:
        raise Refusal(Code.INVALID_ARGUMENT, "x" * 100_000)

    application, _ = bare_application(tmp_path, Route("/refuse", refuse))
    assert len(ask(application, "GET", "/refuse").content) < 3000
