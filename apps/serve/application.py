"""The web application: the protocols' routes behind the limits that hold for all of them."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from apps.serve import rest_v1, rest_v2
from apps.serve.batching import Workers
from apps.serve.errors import Refusal
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository
from apps.serve.settings import Settings


def make_application(repository: Repository, workers: Workers, metrics: Metrics, settings: Settings) -> Starlette:
    """All routes of the server.

    `application.state` has `settings`, `metrics`, `draining` (set by SIGTERM) and `ready()`, for the routes.
    """
    application = Starlette(
        routes=[*rest_v1.routes(repository), *rest_v2.routes(repository)],
        exception_handlers={Refusal: _refused, HTTPException: _http},
    )
    state = application.state
    state.settings, state.metrics, state.draining = settings, metrics, False
    state.ready = lambda: not state.draining and repository.ready() and workers.longest() < settings.hang_seconds
    return application


async def _refused(request, error):
    return JSONResponse({"error": error.message}, error.code.http)


async def _http(request, error):
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
