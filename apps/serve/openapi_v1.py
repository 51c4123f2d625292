"""TensorFlow Serving's REST interface, described for OpenAPI."""

from apps.serve.openapi_parts import (
    ERRORS,
    PICTURE,
    STRING,
    VERSIONS,
    Document,
    answered,
    describe,
    item,
    listed,
    record,
    refer,
)


def paths_of_v1() -> dict[str, Document]:
    """The paths under /v1/."""
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
    paths = item(
        "/v1/models",
        get=describe(
            "v1",
            "models",
            "The models of the folder",
            {"schema": record("models", models=listed(STRING)), "example": {"models": ["digits"]}},
            errors=("401",),
        ),
    )
    for suffix, which in VERSIONS.items():
        short = suffix.strip("/").split("/")[0]
        end = f"_{short[:-1]}" if short else ""
        predict_body = {
            "schema": refer("schemas", "PredictRequest"),
            "examples": {
                "a picture file": {"value": {"instances": [PICTURE]}},
                "two, by signature": {"value": {"signature_name": "serving_bytes", "instances": [PICTURE, PICTURE]}},
                "columns": {"value": {"signature_name": "serving_bytes", "inputs": [PICTURE]}},
            },
        }
        examples = {
            "schema": refer("schemas", "ExamplesRequest"),
            "example": {"signature_name": "serving_bytes", "examples": [{"image_bytes": PICTURE}]},
        }
        base = "/v1/models/{name}" + suffix
        paths |= item(
            base + ":predict",
            post=describe(
                "v1",
                "predict" + end,
                f"Outputs of a signature; version: {which}",
                answered("PredictAnswer", {"predictions": [[0.02, 0.95, 0.03]]}),
                errors=ERRORS,
                body={"application/json": predict_body},
                description="Probabilities by class, in the order of the model's class names. A picture file in base64 "
                "is let in wherever a signature takes pixels.",
            ),
        )
        paths |= item(
            base + ":classify",
            post=describe(
                "v1",
                "classify" + end,
                f"Classes with their scores; version: {which}",
                answered("ClassifyAnswer", {"results": [[["one", 0.95], ["two", 0.03]]]}),
                errors=ERRORS,
                body={"application/json": examples},
            ),
        )
        paths |= item(
            base + ":regress",
            post=describe(
                "v1",
                "regress" + end,
                f"One number for each example; version: {which}",
                answered("RegressAnswer", {"results": [2.5]}),
                errors=ERRORS,
                body={"application/json": {**examples, "example": {"examples": [{"x": [1.0]}]}}},
            ),
        )
        paths |= item(
            base,
            get=describe(
                "v1",
                "status" + end,
                f"Where versions stand; version: {'all' if not suffix else which}",
                answered("Status", status),
                errors=("400", "401", "404"),
            ),
        )
        paths |= item(
            base + "/metadata",
            get=describe(
                "v1",
                "metadata" + end,
                f"Signatures; version: {which}",
                answered("Metadata", metadata),
                errors=("400", "401", "404"),
            ),
        )
    return paths
