"""What the descriptions of all routes are made of: parameters, schemas, refusals, and an operation."""

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]
# One red pixel as a PNG, so that the examples can be tried as they are.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mM4oaEBAALUARk7rVwIAAAAAElFTkSuQmCC"
PICTURE = {"b64": PIXEL}
VERSIONS = {"": "the highest that is served", "/versions/{version}": "that one", "/labels/{label}": "the labelled one"}
ERRORS = ("400", "401", "404", "413", "429", "503", "504")


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

TENSOR = {"description": 'A number, true or false, a string, {"b64": ...} for bytes, or nested lists of these.'}
SHAPE = {"type": "array", "items": {"type": "integer", "minimum": -1}}
TYPE = {
    "enum": [
        "BOOL",
        *(f"{kind}{bits}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)),
        "FP16",
        "BF16",
        "FP32",
        "FP64",
        "BYTES",
    ],
}
NAMED = {"type": "object", "additionalProperties": TENSOR}
STRING = {"type": "string"}
EXAMPLES = {
    "type": "object",
    "required": ["examples"],
    "properties": {
        "signature_name": STRING,
        "context": NAMED,
        "examples": {"type": "array", "items": NAMED, "description": "Features by name, one object for a row."},
    },
}


def record(required: str = "", **properties: object) -> Document:
    """An object with these properties, of which those named in `required` are."""
    found: Document = {"type": "object", "properties": properties}
    return {**found, "required": required.split()} if required else found


def listed(items: object) -> Document:
    """A list of such items."""
    return {"type": "array", "items": items}


V2_TENSOR = record("name shape datatype", name=STRING, shape=SHAPE, datatype=TYPE)
V2_DATA = record(
    "name shape datatype",
    name=STRING,
    shape=SHAPE,
    datatype=TYPE,
    parameters={"type": "object"},
    data={"type": "array", "description": "Flat or nested, rows first; left out where the tensor is binary."},
)

SCHEMAS: Document = {
    "Error": record("error", error=STRING),
    "PredictRequest": {
        "description": "Rows (`instances`) or columns (`inputs`), not both.",
        "type": "object",
        "properties": {
            "signature_name": {
                "type": "string",
                "description": "`serving_default` (pixels; a picture file in base64 is decoded), `serving_bytes` "
                "(picture files), `explain` (heat maps), or another of the model's.",
            },
            "instances": {"type": "array", "items": TENSOR, "minItems": 1},
            "inputs": TENSOR,
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
    "ExamplesRequest": EXAMPLES,
    "ClassifyAnswer": record(
        "results",
        results=listed(listed({"type": "array", "prefixItems": [STRING, {"type": "number"}], "items": False})),
    ),
    "RegressAnswer": record("results", results=listed({"type": "number"})),
    "Status": record(
        "model_version_status",
        model_version_status=listed(
            record(
                "version state status",
                version=STRING,
                state={"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                status=record(error_code=STRING, error_message=STRING),
            )
        ),
    ),
    "Metadata": record("model_spec metadata", model_spec={"type": "object"}, metadata={"type": "object"}),
    "ServerMetadata": record("name version extensions", name=STRING, version=STRING, extensions=listed(STRING)),
    "ModelMetadata": record(
        "name platform inputs outputs",
        name=STRING,
        versions=listed(STRING),
        platform=STRING,
        inputs=listed(V2_TENSOR),
        outputs=listed(V2_TENSOR),
    ),
    "Statistics": record("model_stats", model_stats=listed({"type": "object"})),
    "InferRequest": record(
        "inputs",
        id=STRING,
        parameters={"type": "object"},
        inputs=listed(V2_DATA),
        outputs=listed(record("name", name=STRING, parameters={"type": "object"})),
    ),
    "InferAnswer": record(
        "model_name outputs", model_name=STRING, model_version=STRING, id=STRING, outputs=listed(V2_DATA)
    ),
}

MEANINGS = {
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
    for status, meaning in MEANINGS.items()
}


def refer(kind: str, name: str) -> Document:
    """A reference to one of the shared components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def describe(
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
    """One operation: what is asked for, what comes back, why it may be refused."""
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
        **{status: refer("responses", status) for status in errors},
    }
    return {**found, "security": []} if public else found


def answered(schema: str, example: object) -> Document:
    """An answer of such a schema."""
    return {"schema": refer("schemas", schema), "example": example}


def item(path: str, **operations: Document) -> dict[str, Document]:
    """A path with its operations, and with the parameters that its braces name."""
    names = [part.split("}")[0] for part in path.split("{")[1:]]
    shared = {"parameters": [refer("parameters", name) for name in names]} if names else {}
    return {path: {**shared, **operations}}
