"""The Open Inference Protocol, described for OpenAPI."""

from apps.serve.openapi_parts import (
    ERRORS,
    PICTURE,
    STRING,
    Document,
    answered,
    describe,
    item,
    listed,
    record,
    refer,
)


def paths_of_v2() -> dict[str, Document]:
    """The paths under /v2/."""
    paths = item(
        "/v2",
        get=describe(
            "v2",
            "server_metadata",
            "Name, version and extensions of the server",
            answered("ServerMetadata", {"name": "kerascnn", "version": "0.1.0", "extensions": ["binary_tensor_data"]}),
            errors=("401",),
        ),
    )
    for name, summary in (("live", "The process answers"), ("ready", "It serves every model of its folder")):
        paths |= item(
            f"/v2/health/{name}",
            get=describe(
                "health",
                name,
                summary,
                {"schema": record(name, **{name: {"type": "boolean"}}), "example": {name: True}},
                public=True,
                more={"503": "Not now."},
            ),
        )
    metadata = {
        "name": "digits",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [{"name": "label", "datatype": "FP32", "shape": [-1, 10]}],
    }
    counted = {
        "name": "digits",
        "version": "1",
        "last_inference": 1793000000000,
        "inference_count": 12,
        "inference_stats": {"success": {"count": 12, "ns": 61000000}, "fail": {"count": 0, "ns": 0}},
    }
    statistics = {"schema": refer("schemas", "Statistics"), "example": {"model_stats": [counted]}}
    paths |= item(
        "/v2/models",
        get=describe(
            "v2",
            "model_names",
            "The models of the folder",
            {"schema": record("models", models=listed(STRING)), "example": {"models": ["digits"]}},
            errors=("401",),
        ),
    )
    paths |= item(
        "/v2/models/stats",
        get=describe("v2", "all_statistics", "What every model was asked for", statistics, errors=("401",)),
    )
    entry = {"name": "digits", "version": "1", "state": "READY", "reason": ""}
    paths |= item(
        "/v2/repository/index",
        post=describe(
            "v2",
            "repository_index",
            "Every version of every model",
            {"schema": listed({"type": "object"}), "example": [entry]},
            errors=("400", "401"),
            body={"application/json": {"schema": record(ready={"type": "boolean"}), "example": {"ready": True}}},
        ),
    )
    for verb, said in (("load", "Look at a model's folder now"), ("unload", "Stop serving a model")):
        paths |= item(
            f"/v2/repository/models/{{name}}/{verb}",
            post=describe(
                "v2",
                f"repository_{verb}",
                said,
                {"schema": {"type": "object"}, "example": {"name": "digits", verb: True}},
                errors=("400", "401", "404"),
                body={"application/json": {"schema": {"type": "object"}, "example": {}}},
            ),
        )
    infer_body = {
        "application/json": {
            "schema": refer("schemas", "InferRequest"),
            "examples": {
                "top classes of a picture file": {
                    "value": {
                        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [PICTURE]}],
                        "outputs": [{"name": "label", "parameters": {"classification": 3}}],
                    }
                }
            },
        },
        "image/jpeg": {"schema": {"type": "string", "contentEncoding": "binary"}},
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
        paths |= item(
            base,
            get=describe(
                "v2",
                "model_metadata" + end,
                "Inputs and outputs of a model",
                answered("ModelMetadata", metadata),
                errors=("400", "401", "404"),
            ),
        )
        paths |= item(
            base + "/ready",
            get=describe(
                "v2",
                "model_ready" + end,
                "Whether a model answers",
                {
                    "schema": record("ready", name=STRING, ready={"type": "boolean"}),
                    "example": {"name": "digits", "ready": True},
                },
                errors=("401", "404"),
                more={"503": "It does not."},
            ),
        )
        paths |= item(
            base + "/config",
            get=describe(
                "v2",
                "model_config" + end,
                "A model's configuration in Triton's form",
                {"schema": {"type": "object"}},
                errors=("400", "401", "404"),
            ),
        )
        paths |= item(
            base + "/stats",
            get=describe(
                "v2", "statistics" + end, "What a model was asked for", statistics, errors=("400", "401", "404")
            ),
        )
        infer = describe(
            "v2",
            "infer" + end,
            "Outputs of a model",
            answered("InferAnswer", answer),
            errors=ERRORS,
            body=infer_body,
            description="Tensors as JSON or as binary data behind it. With a content type of `image/`, or with "
            "`Inference-Header-Content-Length: 0`, the body is the picture file itself. The output parameter "
            "`classification` asks for the top classes, `value:index:name`.",
        )
        infer["parameters"] = [refer("parameters", "json_bytes")]
        paths |= item(base + "/infer", post=infer)
    return paths
