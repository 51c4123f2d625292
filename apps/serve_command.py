"""The command `kerascnn serve`: its options, and where its token comes from."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from apps.options import Debug
from apps.startup import import_tensorflow

# Everything else is imported by the command: TensorFlow takes seconds, `--help` must not.

BATCHES, LIMITS, TIMES, ACCESS = "Batches", "Limits", "Times", "Access and logs"
MIB = 1 << 20


def serve(
    folder: Annotated[
        Path, typer.Argument(help="Models: DIR/NAME/VERSION/, one model's folder, or one SavedModel.")
    ] = Path("saved_models"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine reaches the default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of REST; 0 takes a free one.")] = 8501,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of gRPC; 0 takes a free one.", show_default="no gRPC")
    ] = None,
    runner: Annotated[
        str, typer.Option(help="`tensorflow`, `openvino`, or `auto`: measured at load, the fastest that agrees.")
    ] = "auto",
    exact: Annotated[
        bool, typer.Option("--exact", help="Never compute in bfloat16 or float16 because that is faster.")
    ] = False,
    poll_seconds: Annotated[
        float, typer.Option(min=0, help="How often the folder is looked at for new versions; 0: once, at the start.")
    ] = 1.0,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Rows computed together at most.", rich_help_panel=BATCHES)
    ] = 32,
    max_wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds that a free worker waits for a fuller batch.", rich_help_panel=BATCHES),
    ] = 0.0,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Batches computed at the same time.",
            show_default="1 on a GPU, else 2 at most",
            rich_help_panel=BATCHES,
        ),
    ] = 0,
    queue_rows: Annotated[
        int,
        typer.Option(
            min=0,
            help="Rows of a model that may wait; more are refused at once.",
            show_default="4 times --max-batch",
            rich_help_panel=BATCHES,
        ),
    ] = 0,
    queue_mib: Annotated[
        float, typer.Option(min=0, help="The same in MiB; also of all bodies in memory.", rich_help_panel=BATCHES)
    ] = 256,
    overload_status: Annotated[
        int, typer.Option(help="Answer of a full queue: 503 or 429.", rich_help_panel=BATCHES)
    ] = 503,
    retry_after: Annotated[
        float, typer.Option(min=0, help="Seconds that it asks the client to wait.", rich_help_panel=BATCHES)
    ] = 1.0,
    max_body_mib: Annotated[
        float, typer.Option(min=0, help="MiB of a request's body, decompressed.", rich_help_panel=LIMITS)
    ] = 32,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Height times width of a picture.", rich_help_panel=LIMITS)
    ] = 50_000_000,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Kind of pictures let in: `jpeg`, `png`, `gif`, `bmp`, `webp`; repeat for several.",
            show_default="jpeg and png",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_connections: Annotated[int, typer.Option(min=1, help="Open at the same time.", rich_help_panel=LIMITS)] = 1024,
    header_seconds: Annotated[
        float, typer.Option(min=0, help="From connecting to the end of a header.", rich_help_panel=TIMES)
    ] = 10.0,
    body_seconds: Annotated[
        float, typer.Option(min=0, help="From there to the end of the body.", rich_help_panel=TIMES)
    ] = 30.0,
    request_seconds: Annotated[
        float, typer.Option(min=0, help="From the end of a header to the answer.", rich_help_panel=TIMES)
    ] = 30.0,
    keep_alive_seconds: Annotated[
        float, typer.Option(min=0, help="Until a connection without a new request is closed.", rich_help_panel=TIMES)
    ] = 75.0,
    hang_seconds: Annotated[
        float, typer.Option(min=0, help="A batch that takes longer makes the server not ready.", rich_help_panel=TIMES)
    ] = 60.0,
    drain_delay: Annotated[
        float,
        typer.Option(min=0, help="From SIGTERM, when readiness falls, to refusing connections.", rich_help_panel=TIMES),
    ] = 5.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="What requests in flight have to finish then.", rich_help_panel=TIMES)
    ] = 30.0,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that clients must send as `Authorization: Bearer TOKEN`.",
            show_default="the variable KERASCNN_TOKEN, else none is asked for",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file, for HTTPS.", show_default="plain HTTP", rich_help_panel=ACCESS)
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file with the certificate's key.",
            show_default="in the certificate's file",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            help="Lines on standard error: `json` or `text`.",
            show_default="text on a terminal, else json",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each request.", rich_help_panel=ACCESS)] = False,
    debug: Debug = False,
) -> None:
    """Serve exported models to TensorFlow Serving's and KServe's clients, and on a page for people.

    SIGTERM ends it without a lost request, a second one at once; times are in seconds.
    """
    from apps.serve.settings import Settings

    settings = Settings(
        folder=folder,
        host=host,
        port=port,
        grpc_port=grpc_port,
        runner=runner,
        exact=exact,
        max_batch=max_batch,
        max_wait=max_wait,
        workers=workers,
        queue_rows=queue_rows,
        queue_bytes=int(queue_mib * MIB),
        max_body=int(max_body_mib * MIB),
        max_pixels=max_pixels,
        formats=tuple(dict.fromkeys(formats or Settings.formats)),
        max_connections=max_connections,
        header_seconds=header_seconds,
        body_seconds=body_seconds,
        keep_alive_seconds=keep_alive_seconds,
        request_seconds=request_seconds,
        overload_status=overload_status,
        retry_after=retry_after,
        poll_seconds=poll_seconds,
        hang_seconds=hang_seconds,
        drain_delay=drain_delay,
        drain_seconds=drain_seconds,
        token=_read_token(token_file),
        certificate=certificate,
        key=key,
        log_format=log_format or ("text" if sys.stderr.isatty() else "json"),
        log_requests=not quiet,
    )
    settings.check()
    import_tensorflow(debug, devices=False)  # the server sets threads and memory first
    from apps.serve.server import serve as run

    run(settings)


def _read_token(file: Path | None) -> str | None:
    """The token, from the file or the environment: an argument would be seen by every user of the machine."""
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    return os.environ.get("KERASCNN_TOKEN") or None
