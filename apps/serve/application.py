"""The web application: the protocols' routes behind the limits that hold for all of them."""

from starlette.applications import Starlette

from apps.serve import rest_v1
from apps.serve.repository import Repository
from apps.serve.settings import Settings


def make_application(repository: Repository, settings: Settings) -> Starlette:
    """All routes of the server."""
    application = Starlette(routes=[*rest_v1.routes(repository)])
    application.state.settings = settings  # what `exchange` keeps to
    return application
