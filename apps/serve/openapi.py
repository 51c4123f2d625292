"""What the server understands, as OpenAPI 3.1 for programs and as a page for people."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from apps.serve.html_answer import html_answer, read_page

Document = dict[str, Any]
# One red pixel as a PNG, so that the examples can be tried as they are.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mM4oaEBAALUARk7rVwIAAAAAElFTkSuQmCC"
PICTURE = {"b64": PIXEL}
VERSIONS = {"": "the highest that is served", "/versions/{version}": "that one", "/labels/{label}": "the labelled one"}
ERRORS_V1 = ("400", "401", "404", "413", "429", "503", "504")
ERRORS_V2 = ERRORS_V1


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
            {"name": "v2", "description": "The Open Inference Protocol of KServe and Triton, with binary data."},
            {"name": "health", "description": "For supervisors and monitoring; health never asks for the token."},
            {"name": "people", "description": "Pages for the browser."},
        ],
        "security": [{}, {"token": []}],
        "paths": {**_v1(), **_v2(), **_health(), **_people()},
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


PARAMETERS: Document = {
    "name": {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "example": "digits"},
    "version": {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "integer", "format": "int64", "minimum": 0},
        "example": 1,
    },
    "label": {"name": "label", "in": "path", "required": True, "schema": {"type": "string"}, "example": "stable"},
    "json_bytes": {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of JSON at the start of a body that goes on with tensors; 0: the body is one input.",
        "schema": {"type": "integer", "minimum": 0},
    },
}

_TENSOR = {"description": 'A number, true or false, a string, {"b64": ...} for bytes, or nested lists of these.'}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": -1}}
_TYPE = {
    "enum": [
        "BOOL",
        *(f"{kind}{bits}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)),
        "FP16",
        "FP32",
        "FP64",
        "BYTES",
    ],
}
_NAMED = {"type": "object", "additionalProperties": _TENSOR}
_STRING = {"type": "string"}
_EXAMPLES = {
    "type": "object",
    "required": ["examples"],
    "properties": {
        "signature_name": _STRING,
        "context": _NAMED,
        "examples": {"type": "array", "items": _NAMED, "description": "Features by name, one object for a row."},
    },
}


def _object(required: str = "", **properties: object) -> Document:
    found: Document = {"type": "object", "properties": properties}
    return {**found, "required": required.split()} if required else found


def _list(items: object) -> Document:
    return {"type": "array", "items": items}


_V2_TENSOR = _object("name shape datatype", name=_STRING, shape=_SHAPE, datatype=_TYPE)
_V2_DATA = _object(
    "name shape datatype",
    name=_STRING,
    shape=_SHAPE,
    datatype=_TYPE,
    parameters={"type": "object"},
    data={"type": "array", "description": "Flat or nested, rows first; left out where the tensor is binary."},
)

SCHEMAS: Document = {
    "Error": _object("error", error=_STRING),
    "PredictRequest": {
        "description": "Rows (`instances`) or columns (`inputs`), not both.",
        "type": "object",
        "properties": {
            "signature_name": {
                "type": "string",
                "description": "`serving_default` (pixels; a picture file in base64 is decoded), `serving_bytes` "
                "(picture files), `explain` (heat maps), or another of the model's.",
            },
            "instances": {"type": "array", "items": _TENSOR, "minItems": 1},
            "inputs": _TENSOR,
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "PredictAnswer": {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "description": "A row each: the output, or several by name."},
            "outputs": {"description": "For `inputs`: the output, or several by name."},
        },
    },
    "ExamplesRequest": _EXAMPLES,
    "ClassifyAnswer": _object(
        "results",
        results=_list(_list({"type": "array", "prefixItems": [_STRING, {"type": "number"}], "items": False})),
    ),
    "RegressAnswer": _object("results", results=_list({"type": "number"})),
    "Status": _object(
        "model_version_status",
        model_version_status=_list(
            _object(
                "version state status",
                version=_STRING,
                state={"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                status=_object(error_code=_STRING, error_message=_STRING),
            )
        ),
    ),
    "Metadata": _object("model_spec metadata", model_spec={"type": "object"}, metadata={"type": "object"}),
    "ServerMetadata": _object("name version extensions", name=_STRING, version=_STRING, extensions=_list(_STRING)),
    "ModelMetadata": _object(
        "name platform inputs outputs",
        name=_STRING,
        versions=_list(_STRING),
        platform=_STRING,
        inputs=_list(_V2_TENSOR),
        outputs=_list(_V2_TENSOR),
    ),
    "InferRequest": _object(
        "inputs",
        id=_STRING,
        parameters={"type": "object"},
        inputs=_list(_V2_DATA),
        outputs=_list(_object("name", name=_STRING, parameters={"type": "object"})),
    ),
    "InferAnswer": _object(
        "model_name outputs", model_name=_STRING, model_version=_STRING, id=_STRING, outputs=_list(_V2_DATA)
    ),
}

_MEANINGS = {
    "400": "The request is malformed, does not fit the model, or brings no picture that can be decoded.",
    "401": "The token is missing or wrong.",
    "404": "No such model, version or path.",
    "413": "The body, or the picture once decoded, is larger than the server lets in.",
    "429": "Too much to do, where the server was told to say so like this; `Retry-After` says when to come back.",
    "503": "Too much to do, or shutting down; `Retry-After` says when to come back.",
    "504": "Not answered within the time that a request may take.",
}
RESPONSES: Document = {
    status: {
        "description": meaning,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for status, meaning in _MEANINGS.items()
}


def _refer(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}


def _operation(
    tag: str,
    name: str,
    summary: str,
    answer: Document | None = None,
    *,
    errors: tuple[str, ...] = (),
    body: Document | None = None,
    description: str = "",
    public: bool = False,
    kind: str = "application/json",
    more: Mapping[str, str] | None = None,
) -> Document:
    good: Document = {"description": "Done." if answer is None else "The answer."}
    if answer is not None:
        good["content"] = {kind: answer}
    found: Document = {"tags": [tag], "operationId": name, "summary": summary}
    if description:
        found["description"] = description
    if body:
        found["requestBody"] = {"required": True, "content": body}
    found["responses"] = {
        "200": good,
        **{status: {"description": meaning} for status, meaning in (more or {}).items()},
        **{status: _refer("responses", status) for status in errors},
    }
    return {**found, "security": []} if public else found


def _answer(schema: str, example: object) -> Document:
    return {"schema": _refer("schemas", schema), "example": example}


def _path(path: str, **operations: Document) -> dict[str, Document]:
    names = [part.split("}")[0] for part in path.split("{")[1:]]
    shared = {"parameters": [_refer("parameters", name) for name in names]} if names else {}
    return {path: {**shared, **operations}}


def _v1() -> dict[str, Document]:
    status = {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    signature = {
        "inputs": {"image_bytes": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1", "name": ""}]}}},
        "outputs": {"label": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "10"}]}}},
        "method_name": "tensorflow/serving/predict",
    }
    metadata = {
        "model_spec": {"name": "digits", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_bytes": signature}}},
    }
    paths: dict[str, Document] = {}
    for suffix, which in VERSIONS.items():
        short = suffix.strip("/").split("/")[0]
        end = f"_{short[:-1]}" if short else ""
        predict_body = {
            "schema": _refer("schemas", "PredictRequest"),
            "examples": {
                "a picture file": {"value": {"instances": [PICTURE]}},
                "two, by signature": {"value": {"signature_name": "serving_bytes", "instances": [PICTURE, PICTURE]}},
                "columns": {"value": {"signature_name": "serving_bytes", "inputs": [PICTURE]}},
            },
        }
        examples = {
            "schema": _refer("schemas", "ExamplesRequest"),
            "example": {"signature_name": "serving_bytes", "examples": [{"image_bytes": PICTURE}]},
        }
        base = "/v1/models/{name}" + suffix
        paths |= _path(
            base + ":predict",
            post=_operation(
                "v1",
                "predict" + end,
                f"Outputs of a signature; version: {which}",
                _answer("PredictAnswer", {"predictions": [[0.02, 0.95, 0.03]]}),
                errors=ERRORS_V1,
                body={"application/json": predict_body},
                description="Probabilities by class, in the order of the model's class names. A picture file in base64 "
                "is let in wherever a signature takes pixels.",
            ),
        )
        paths |= _path(
            base + ":classify",
            post=_operation(
                "v1",
                "classify" + end,
                f"Classes with their scores; version: {which}",
                _answer("ClassifyAnswer", {"results": [[["one", 0.95], ["two", 0.03]]]}),
                errors=ERRORS_V1,
                body={"application/json": examples},
            ),
        )
        paths |= _path(
            base + ":regress",
            post=_operation(
                "v1",
                "regress" + end,
                f"One number for each example; version: {which}",
                _answer("RegressAnswer", {"results": [2.5]}),
                errors=ERRORS_V1,
                body={"application/json": {**examples, "example": {"examples": [{"x": [1.0]}]}}},
            ),
        )
        paths |= _path(
            base,
            get=_operation(
                "v1",
                "status" + end,
                f"Where versions stand; version: {'all' if not suffix else which}",
                _answer("Status", status),
                errors=("400", "401", "404"),
            ),
        )
        paths |= _path(
            base + "/metadata",
            get=_operation(
                "v1",
                "metadata" + end,
                f"Signatures; version: {which}",
                _answer("Metadata", metadata),
                errors=("400", "401", "404"),
            ),
        )
    return paths


def _v2() -> dict[str, Document]:
    paths = _path(
        "/v2",
        get=_operation(
            "v2",
            "server_metadata",
            "Name, version and extensions of the server",
            _answer("ServerMetadata", {"name": "kerascnn", "version": "1", "extensions": ["binary_tensor_data"]}),
            errors=("401",),
        ),
    )
    for name, summary in (("live", "The process answers"), ("ready", "It serves every model of its folder")):
        paths |= _path(
            f"/v2/health/{name}",
            get=_operation(
                "health",
                name,
                summary,
                {"schema": _object(name, **{name: {"type": "boolean"}}), "example": {name: True}},
                public=True,
                more={"503": "Not now."},
            ),
        )
    metadata = {
        "name": "digits",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "label", "datatype": "FP32", "shape": [-1, 10]}],
    }
    infer_body = {
        "application/json": {
            "schema": _refer("schemas", "InferRequest"),
            "examples": {
                "top classes of a picture file": {
                    "value": {
                        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [PIXEL]}],
                        "outputs": [{"name": "label", "parameters": {"classification": 3}}],
                    }
                }
            },
        },
        "application/octet-stream": {"schema": {"type": "string", "contentEncoding": "binary"}},
    }
    answer = {
        "model_name": "digits",
        "model_version": "1",
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1, 3], "data": ["0.95:1:one", "0.03:2:two"]}],
    }
    for suffix in ("", "/versions/{version}"):
        end = "_version" if suffix else ""
        base = "/v2/models/{name}" + suffix
        paths |= _path(
            base,
            get=_operation(
                "v2",
                "model_metadata" + end,
                "Inputs and outputs of a model",
                _answer("ModelMetadata", metadata),
                errors=("400", "401", "404"),
            ),
        )
        paths |= _path(
            base + "/ready",
            get=_operation(
                "v2",
                "model_ready" + end,
                "Whether a model answers",
                {"schema": _object("ready", ready={"type": "boolean"}), "example": {"ready": True}},
                errors=("401", "404"),
                more={"503": "It does not."},
            ),
        )
        infer = _operation(
            "v2",
            "infer" + end,
            "Outputs of a model",
            _answer("InferAnswer", answer),
            errors=ERRORS_V2,
            body=infer_body,
            description="Tensors as JSON or as binary data behind it; with `Inference-Header-Content-Length: 0` the "
            "body is the picture file itself. The output parameter `classification` asks for the top classes, "
            '"value:index:name".',
        )
        infer["parameters"] = [_refer("parameters", "json_bytes")]
        paths |= _path(base + "/infer", post=infer)
    return paths


def _health() -> dict[str, Document]:
    text = {"schema": {"type": "string"}, "example": ':tensorflow:serving:request_count{model_name="digits"} 1.0'}
    return {
        path: {
            "get": _operation(
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
        path: {"get": _operation("people", name, summary, content, kind=kind, public=public, errors=errors)}
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


def curl(path: str, method: str, kind: str | None, example: object, address: str, token: bool) -> str:
    """A line for the shell that asks one route.

    Args:
        path: With parameters in braces, which get their examples.
        method: "get" or "post".
        kind: Of the body; None for no body.
        example: The body, where it is JSON.
        address: Of the server, such as "http://127.0.0.1:8501".
        token: Whether the server asks for one, which is taken from `$TOKEN`.

    >>> curl("/v2/models/{name}", "get", None, None, "http://127.0.0.1:8501", False)
    'curl http://127.0.0.1:8501/v2/models/digits'
    """
    for name, parameter in PARAMETERS.items():
        path = path.replace(f"{{{name}}}", str(parameter.get("example")))
    words = ["curl"]
    if token:
        words.append('-H "Authorization: Bearer $TOKEN"')
    if kind == "application/json":
        words.append(f"-d '{json.dumps(example)}'")
    elif kind:
        words.append("-H 'Inference-Header-Content-Length: 0' --data-binary @photo.jpg")
    return " ".join([*words, address + path])


def docs_html(description: Document, address: str, token: bool) -> str:
    """The routes of `document()` as HTML, with lines for the shell that ask this address."""
    parts = [f"<p>{_prose(description['info']['description'])}</p>"]
    if token:
        parts.append("<p>This server asks for a token, in the header <code>Authorization: Bearer</code>.</p>")
    for tag in description["tags"]:
        parts.append(
            f'<h2 id="{tag["name"]}">{escape(tag["name"])}</h2><p class="soft">{_prose(tag["description"])}</p>'
        )
        for path, method, operation in operations(description):
            if operation["tags"] == [tag["name"]]:
                parts.append(_operation_html(path, method, operation, address, token))
    return "\n".join(parts)


def operations(description: Document) -> Iterator[tuple[str, str, Document]]:
    """(path, method, operation) of every route."""
    for path, item in description["paths"].items():
        for method in ("get", "post"):
            if method in item:
                yield path, method, item[method]


def _operation_html(path: str, method: str, operation: Document, address: str, token: bool) -> str:
    shown = [f"<p>{_prose(operation.get('description', ''))}</p>"] if "description" in operation else []
    bodies = operation.get("requestBody", {}).get("content", {None: {}})
    for kind, body in bodies.items():
        examples = body.get("examples") or {"": {"value": body.get("example")}}
        for name, example in examples.items():
            title = name or ("the picture file itself" if kind == "application/octet-stream" else "")
            shown.append(f"<h4>{escape(title)}</h4>" if title else "")
            line = curl(path, method, kind, example["value"], address, token)
            shown.append(f'<pre tabindex="0">{escape(line)}</pre>')
    rows = []
    for status, response in operation["responses"].items():
        told = RESPONSES[status] if "$ref" in response else response
        rows.append(f"<tr><th>{status}</th><td>{_prose(told['description'])}</td></tr>")
        for content in told.get("content", {}).values():
            if "example" in content:
                text = content["example"] if isinstance(content["example"], str) else json.dumps(content["example"])
                rows.append(f"<tr><th></th><td><code>{escape(text)}</code></td></tr>")
    return (
        f'<details id="{operation["operationId"]}"><summary><b class="{method}">{method.upper()}</b> '
        f"<code>{escape(path)}</code> <span>{escape(operation['summary'])}</span></summary>"
        f"{''.join(shown)}<table>{''.join(rows)}</table></details>"
    )


def _prose(text: str) -> str:
    """Text whose `code` is marked by backticks."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
