"""The page and the description of the interface, without a browser."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_examples import PAGE_CLASSES, colour_model
from serving_examples import CLASSES, picture
from starlette.applications import Starlette
from starlette.routing import Match, Route

from apps.serve.application import make_application
from apps.serve.batching import Workers
from apps.serve.docs_page import curl, docs_html, operations
from apps.serve.html_answer import html_answer, read_page
from apps.serve.loading import load_servable
from apps.serve.metrics import Metrics
from apps.serve.openapi import document
from apps.serve.repository import AVAILABLE, END, LOADING, Repository, VersionStatus
from apps.serve.servable import Servable
from apps.serve.settings import Settings

RAW = {"Inference-Header-Content-Length": "0"}


class Shelf:
    """A repository that has what it is given."""

    def __init__(self, servables: list[Servable], statuses: Mapping[str, list[VersionStatus]] | None = None) -> None:
        self.servables, self.statuses = servables, dict(statuses or {})

    def names(self) -> list[str]:
        return sorted({servable.name for servable in self.servables} | set(self.statuses))

    def ready(self) -> bool:
        return True

    def status(self, name: str) -> list[VersionStatus]:
        served = [VersionStatus(one.version, AVAILABLE) for one in self.servables if one.name == name]
        return self.statuses.get(name, []) + served

    def use(self, name: str, version: int) -> "Shelf":
        self.found = next(one for one in self.servables if (one.name, one.version) == (name, version))
        return self

    def __enter__(self) -> Servable:
        return self.found

    def __exit__(self, *_: object) -> None:
        pass


def load(folder: Path, name: str, version: int) -> Servable:
    settings = Settings(folder)
    threads = ThreadPoolExecutor(1)
    return load_servable(
        folder, name, version, settings=settings, workers=Workers(1), decoders=threads, observe=lambda *_: None
    )


@pytest.fixture(scope="module")
def servables(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Servable]]:
    folder = colour_model(tmp_path_factory.mktemp("page") / "colours/3")
    found = [load(models / "half/123", "half", 123), load(models / "tiny/1", "tiny", 1), load(folder, "colours", 3)]
    yield found
    for servable in found:
        servable.decoders.shutdown()
        servable.batcher._workers.close()


def application(repository: Shelf, **settings: Any) -> Starlette:
    return make_application(repository, Workers(1), Metrics(), Settings(**settings))  # type: ignore[arg-type]


def get(app: Starlette, path: str, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8501") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


def test_the_page_asks_nobody_but_this_server() -> None:
    for path in ("/", "/docs"):
        answer = get(application(Shelf([])), path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        without_data = re.sub(r'"data:[^"]*"', "", answer.text)
        addresses = re.findall(r"""(?:https?:)?//[\w.]+""", re.sub(r"(?m)(?<!:)// .*$", "", without_data))
        assert {address.split("//")[1] for address in addresses} <= {"127.0.0.1"}, addresses  # curl lines
        assert re.findall(r'(?:src|href)="(?!data:|/\w*(?:\.json)?")', answer.text) == []


def test_only_the_pages_own_script_and_style_may_run() -> None:
    """The policy has the hashes of what is sent, and nothing that lets others in."""
    import base64
    import hashlib

    answer = get(application(Shelf([])), "/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    script = answer.text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r"\son\w+=|\sstyle=", answer.text.split("<script>")[0].split("</style>")[1])
    assert "innerHTML" not in answer.text  # names of classes come from strangers


def test_the_policy_of_a_page_without_script_lets_none_run() -> None:
    assert "script-src 'none'" in html_answer("<p>x</p>").headers["content-security-policy"]


def test_facts_tell_what_each_version_can_do(servables: list[Servable]) -> None:
    facts = get(application(Shelf(servables)), "/page/models.json").json()
    assert (facts["formats"], facts["max_body"]) == (["jpeg", "png"], 32 << 20)
    models = {model["name"]: model for model in facts["models"]}
    (colours,), (tiny,), (half,) = (models[name]["served"] for name in ("colours", "tiny", "half"))
    assert colours["explain"]
    assert (colours["version"], colours["signature"]) == ("3", "serving_bytes")
    assert [head["name"] for head in colours["heads"]] == list(PAGE_CLASSES)  # in the order of the model's card
    assert {head["name"]: head["classes"] for head in tiny["heads"]} == CLASSES
    assert (half["signature"], half["heads"]) == (None, [])


def test_facts_tell_of_versions_that_load_or_cannot_be_loaded() -> None:
    broken = VersionStatus(2, END, "UNKNOWN", "saved_model.pb is damaged")
    shelf = Shelf([], {"old": [broken], "new": [VersionStatus(1, LOADING)]})
    new, old = get(application(shelf), "/page/models.json").json()["models"]
    assert old == {
        "name": "old",
        "served": [],
        "failed": [{"version": "2", "message": "saved_model.pb is damaged"}],
        "loading": False,
    }
    assert new["loading"]


def test_with_a_token_the_page_comes_without_it_and_its_facts_do_not() -> None:
    """A reader has to see the field for the token, which the page sends in the header."""
    app = application(Shelf([]), token="secret")
    assert [get(app, path).status_code for path in ("/", "/docs", "/openapi.json")] == [200, 200, 200]
    assert get(app, "/page/models.json").status_code == 401
    assert get(app, "/page/models.json", Authorization="Bearer secret").status_code == 200


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: {"version": "7"}.get(found[1], "some"), path)


def matching(app: Starlette, path: str, method: str) -> list[Route]:
    scope = {"type": "http", "path": filled(path), "root_path": "", "method": method.upper(), "headers": []}
    return [route for route in app.routes if isinstance(route, Route) and route.matches(scope)[0] == Match.FULL]


def test_every_route_is_described_and_everything_described_is_a_route() -> None:
    app = application(Shelf([]))
    described = list(operations(document()))
    unmatched = {(path, method) for path, method, _ in described if not matching(app, path, method)}
    assert not unmatched
    reached = {id(matching(app, path, method)[0]) for path, method, _ in described if matching(app, path, method)}
    assert [route.path for route in app.routes if isinstance(route, Route) and id(route) not in reached] == []


def test_what_is_described_of_v1_is_understood() -> None:
    """Behind its one route: the paths are none that it calls malformed."""
    settings = Settings()
    app = make_application(Repository(settings, load), Workers(1), Metrics(), settings)
    paths = [path for path, method, _ in operations(document()) if path.startswith("/v1") and method == "get"]
    said = [get(app, filled(path)).json() for path in [*paths, "/v1/models/some/nothing"]]
    assert ["Malformed" in str(answer) for answer in said] == [False] * len(paths) + [True]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_the_description_is_whole() -> None:
    """What OpenAPI 3.1 asks for: required fields, unique names, declared parameters, references that exist."""
    description = json.loads(json.dumps(document()))  # plain JSON
    assert description["openapi"].startswith("3.1.")
    assert set(description["info"]) >= {"title", "version"}
    for reference in references(description):
        found: Any = description
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    names, tags = [], {tag["name"] for tag in description["tags"]}
    for path, item in description["paths"].items():
        assert path.startswith("/")
        declared = {reference["$ref"].rsplit("/", 1)[1] for reference in item.get("parameters", [])}
        assert declared == set(re.findall(r"\{(\w+)\}", path))
        assert set(item) <= {"parameters", "get", "post"}
    for _, method, operation in operations(description):
        names.append(operation["operationId"])
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        assert ("requestBody" in operation) == (method == "post")
        assert operation["responses"].keys() >= {"200"}
        for response in operation["responses"].values():
            assert "$ref" in response or response["description"]
    assert len(names) == len(set(names)) > 25
    for name, parameter in description["components"]["parameters"].items():
        assert parameter["in"] == "header" or (parameter["name"], parameter["required"]) == (name, True)


def test_the_docs_have_every_route_and_lines_for_this_address() -> None:
    text = docs_html(document(), "http://[::1]:9<9>", token=True)
    for _, _, operation in operations(document()):
        assert f'<details id="{operation["operationId"]}">' in text
    assert "curl -H &quot;Authorization: Bearer $TOKEN&quot; http://[::1]:9&lt;9&gt;/v2/models/digits/ready" in text
    assert "9<9>" not in text
    assert "<!-- routes -->" in read_page("docs.html")
    assert "curl http://127.0.0.1:8501/v2/health/live" in get(application(Shelf([])), "/docs").text


def test_curl_lines_of_the_shell() -> None:
    """The words that a shell makes of them are the request."""
    import shlex

    line = curl("/v1/models/{name}:predict", "post", "application/json", {"instances": [1.5]}, "http://h:1", True)
    token = ["-H", "Authorization: Bearer $TOKEN"]
    assert shlex.split(line) == ["curl", *token, "-d", '{"instances": [1.5]}', "http://h:1/v1/models/digits:predict"]
    raw = curl("/v2/models/{name}/infer", "post", "application/octet-stream", None, "http://h:1", False)
    assert shlex.split(raw)[1:5] == ["-H", "Inference-Header-Content-Length: 0", "--data-binary", "@photo.jpg"]


def test_described_examples_are_answered(server: Any) -> None:
    item = document()["paths"]["/v1/models/{name}:predict"]["post"]
    for example in item["requestBody"]["content"]["application/json"]["examples"].values():
        answer = server.post("/v1/models/tiny:predict", example["value"])
        assert answer.status == 200, answer.body


def test_described_examples_of_v2_are_answered(server: Any) -> None:
    item = document()["paths"]["/v2/models/{name}/infer"]["post"]
    for example in item["requestBody"]["content"]["application/json"]["examples"].values():
        text = json.dumps(example["value"]).replace('"label"', '"colour"')
        answer = server.post("/v2/models/tiny/infer", text.encode())
        assert answer.status == 200, answer.body
    for kind, header in (("image/jpeg", {"Content-Type": "image/jpeg"}), ("application/octet-stream", RAW)):
        assert kind in item["requestBody"]["content"]
        assert server.post("/v2/models/tiny/infer", picture(kind="JPEG"), header).status == 200
