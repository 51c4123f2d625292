"""TensorFlow Serving's REST interface, version 1."""

import json

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from apps.serve.exchange import deadline_of, read_body, while_connected
from apps.serve.repository import Repository


def routes(repository: Repository) -> list[BaseRoute]:
    """The routes under /v1/."""

    async def predict(request: Request) -> Response:
        body = json.loads(await read_body(request))
        with repository.use(request.path_params["name"]) as servable:
            signature = servable.signature(body.get("signature_name"))
            ((name, spec),) = signature.inputs.items()
            answer = servable.predict(
                signature.name, {name: np.array(body["instances"], spec.dtype)}, deadline_of(request)
            )
            outputs = await while_connected(request, answer)
        return JSONResponse({"predictions": next(iter(outputs.values())).tolist()})

    return [Route("/v1/models/{name}:predict", predict, methods=["POST"])]
