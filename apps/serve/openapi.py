"""What the server understands: `/openapi.json`, OpenAPI 3.1, and `/docs`."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from apps.serve.docs_page import docs_html
from apps.serve.html_answer import html_answer, read_page
from apps.serve.openapi_parts import PARAMETERS, RESPONSES, SCHEMAS, Document, describe
from apps.serve.openapi_v1 import paths_of_v1
from apps.serve.openapi_v2 import paths_of_v2


def routes() -> list[BaseRoute]:
    """`/openapi.json` and `/docs`."""
    description = document()
    page = read_page("docs.html")

    async def show_document(_: Request) -> Response:
        return JSONResponse(description)

    async def show_page(request: Request) -> Response:
        settings = request.app.state.settings
        content = docs_html(description, str(request.base_url).rstrip("/"), settings.token is not None)
        return html_answer(page.replace("<!-- routes -->", content))

    return [Route("/openapi.json", show_document), Route("/docs", show_page)]


def document() -> Document:
    """All routes, OpenAPI 3.1.

    Source: https://spec.openapis.org/oas/v3.1.1.html
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kerascnn serve",
            "version": "1",
            "description": "Image classifiers as SavedModels, behind TensorFlow Serving's REST interface (`/v1/`) and "
            "KServe's Open Inference Protocol (`/v2/`). Clients of either work unmodified. A picture is sent as its "
            "file, in base64 or as it is; decoding, resizing and normalisation are the model's.",
        },
        "tags": [
            {
                "name": "v1",
                "description": "TensorFlow Serving's REST interface. Every route also exists for one version "
                "(`/versions/3`) and for a label (`/labels/stable`).",
            },
            {
                "name": "v2",
                "description": "The Open Inference Protocol of KServe and Triton, with binary data, the classification "
                "extension, and loading and unloading of models.",
            },
            {"name": "health", "description": "For supervisors and monitoring; health never asks for the token."},
            {"name": "people", "description": "Pages for the browser."},
        ],
        "security": [{}, {"token": []}],
        "paths": {**paths_of_v1(), **paths_of_v2(), **_health(), **_people()},
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only where the server was started with a token.",
                }
            },
            "parameters": PARAMETERS,
            "schemas": SCHEMAS,
            "responses": RESPONSES,
        },
    }


def _health() -> dict[str, Document]:
    text = {"schema": {"type": "string"}, "example": ':tensorflow:serving:request_count{model_name="digits"} 1.0'}
    return {
        path: {
            "get": describe(
                "health", name, "Counters for Prometheus", text, kind="text/plain", errors=("401",), description=said
            )
        }
        for path, name, said in (
            ("/metrics", "metrics", "TensorFlow Serving's names and the server's own."),
            ("/monitoring/prometheus/metrics", "metrics_of_tensorflow_serving", "The same, where it has them."),
        )
    }


def _people() -> dict[str, Document]:
    page = {"schema": {"type": "string"}}
    return {
        path: {"get": describe("people", name, summary, content, kind=kind, public=public, errors=errors)}
        for path, name, summary, content, kind, public, errors in (
            ("/", "page", "Drop a picture, see what each head makes of it", page, "text/html", True, ()),
            (
                "/page/models.json",
                "page_models",
                "What that page shows about the models",
                {"schema": {"type": "object"}},
                "application/json",
                False,
                ("401",),
            ),
            ("/docs", "docs", "This description, to be read", page, "text/html", True, ()),
            (
                "/openapi.json",
                "openapi",
                "This description, for programs",
                {"schema": {"type": "object"}},
                "application/json",
                True,
                (),
            ),
        )
    }
