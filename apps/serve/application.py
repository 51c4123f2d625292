"""The web application: the protocols' routes behind the limits that hold for all of them."""

from starlette.applications import Starlette

from apps.serve import openapi, page, rest_v1
from apps.serve.batching import Workers
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository
from apps.serve.settings import Settings


def make_application(repository: Repository, workers: Workers, metrics: Metrics, settings: Settings) -> Starlette:
    """All routes of the server.

    `application.state` has `settings`, `metrics`, `draining` (set by SIGTERM) and `ready()`, for the routes.
    """
    application = Starlette(routes=[*rest_v1.routes(repository), *page.routes(repository), *openapi.routes()])
    state = application.state
    state.settings, state.metrics, state.draining = settings, metrics, False
    state.ready = lambda: not state.draining and repository.ready() and workers.longest() < settings.hang_seconds
    return application
