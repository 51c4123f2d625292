"""The page for people: drop a picture, see what each head makes of it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from apps.serve.errors import Refusal
from apps.serve.html_answer import html_answer, read_page
from apps.serve.repository import AVAILABLE, Repository
from apps.serve.servable import BYTES, DECODE, DEFAULT, EXPLAIN, Servable


def routes(repository: Repository) -> list[BaseRoute]:
    """`/`, and the facts that the page shows; it predicts through the public `/v1/` routes."""
    page = read_page("page.html")

    async def show(_: Request) -> Response:
        return html_answer(page)

    async def models(request: Request) -> Response:
        settings = request.app.state.settings
        facts = {
            "formats": settings.formats,
            "max_body": settings.max_body,
            "models": [_model(repository, name) for name in repository.names()],
        }
        return JSONResponse(facts, headers={"Cache-Control": "no-store"})

    return [Route("/", show), Route("/page/models.json", models)]


def _model(repository: Repository, name: str) -> dict[str, Any]:
    """Where its versions stand, and what those that are served can do; version numbers are strings, as in `/v1/`."""
    served, failed, loading = [], [], False
    try:
        statuses = repository.status(name)
    except Refusal:  # gone since its name was read
        statuses = []
    for status in statuses:
        if status.state == AVAILABLE:
            try:
                with repository.use(name, status.version) as servable:
                    served.append(_servable(servable))
            except Refusal:  # replaced since
                loading = True
        elif status.error_code != "OK":
            failed.append({"version": str(status.version), "message": status.error_message})
        else:
            loading = loading or status.state in ("START", "LOADING")
    return {"name": name, "served": served, "failed": failed, "loading": loading}


def _servable(servable: Servable) -> dict[str, Any]:
    signature = picture_signature(servable)
    outputs = servable.signatures[signature].outputs if signature else {}
    heads = sorted(outputs, key=lambda head: list(servable.classes).index(head) if head in servable.classes else -1)
    return {
        "version": str(servable.version),
        "runner": servable.runner.name,
        "signature": signature,
        "heads": [{"name": head, "classes": list(servable.classes.get(head, []))} for head in heads],
        "explain": EXPLAIN in servable.signatures,
    }


def picture_signature(servable: Servable) -> str | None:
    """The signature that takes one encoded picture a row; None for a model that takes no pictures."""
    for name in (BYTES, DEFAULT):
        inputs = list(servable.signatures[name].inputs.values()) if name in servable.signatures else []
        if len(inputs) == 1:
            (spec,) = inputs
            if spec.is_bytes and spec.shape == (None,):
                return name
            if spec.is_pictures and DECODE in servable.signatures:
                return name
    return None
