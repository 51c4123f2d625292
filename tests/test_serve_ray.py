"""The deployment for Ray Serve: its arguments, and two real replicas that share the requests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving_examples import ROOT

from apps.serve.ray_deployment import FOLDER, NOT_HERE, app, read_arguments
from apps.serve.settings import Settings

# In a process of its own: Ray starts others, and its session ends with it. The number of requests is odd, so that the
# two replicas cannot have answered equally many.
SCRIPT = """
import json, socket, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
import ray
from ray import serve
from apps.serve.ray_deployment import app

ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, _temp_dir=sys.argv[2])
try:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app({"models": sys.argv[1], "cpus": "0.2", "max_batch": "4"}))

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=60) as answer:
            return json.load(answer)

    def predict(number):
        assert ask("/v1/models/half:predict", {"instances": [number]}) == {"predictions": [number / 2 + 2]}
        tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [number]}
        assert ask("/v2/models/half/infer", {"inputs": [tensor]})["outputs"][0]["data"] == [number / 2 + 2]

    def answered(_):
        return ask("/v2/models/half/stats")["model_stats"][0]["inference_stats"]["success"]["count"]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(predict, map(float, range(81))))
        print("answered", *sorted(set(threads.map(answered, range(80)))))
finally:
    serve.shutdown()
    ray.shutdown()
"""


def test_two_replicas_share_the_requests(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason="Needs pip install 'kerascnn[ray]'.")
    shutil.copytree(models / "half", tmp_path / "models/half")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Ray's sockets have names that must stay short.
    session = Path("/tmp") / f"ray-{os.getpid()}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path / "models", session],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        shutil.rmtree(session, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("answered")]
    counts = [int(word) for word in line.split()[1:]]
    assert len(counts) == 2
    assert min(counts) > 0
    assert sum(counts) == 81


def test_arguments_are_texts_or_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"models": str(tmp_path), "replicas": "3", "cpus": "0.5", "max_batch": "8", "formats": "png,webp"}
    settings, replicas, cpus = read_arguments({**texts, "max_wait": "0.01"})
    assert (settings.folder, replicas, cpus) == (tmp_path, 3, 0.5)
    assert (settings.max_batch, settings.max_wait, settings.formats) == (8, 0.01, ("png", "webp"))
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert read_arguments({"max_batch": 8, "formats": ["jpeg"]})[0].formats == ("jpeg",)
    monkeypatch.chdir(tmp_path.parent)
    assert read_arguments({"models": tmp_path.name})[0].folder == tmp_path  # replicas start in other folders


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_bach": "8"}, "max_bach is no argument here; did you mean max_batch?"),
        ({"port": "80"}, "port is no argument here"),
        ({"max_batch": "many"}, "max_batch: a number is expected, not 'many'"),
        ({"replicas": "0"}, "At least one replica"),
        ({"max_batch": "0"}, "more than 0 is expected"),
        ({"models": ""}, "models=FOLDER, or the variable KERASCNN_MODELS"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, str], said: str
) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        read_arguments({"models": str(tmp_path), **arguments})


def test_what_ray_does_itself_are_settings() -> None:
    assert set(Settings.__dataclass_fields__) > NOT_HERE


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"kerascnn\[ray\]"):
        app({})


@pytest.mark.parametrize(("given", "exact"), [("true", True), (True, True), ("false", False), (False, False)])
def test_yes_and_no_are_read_as_a_command_line_writes_them(tmp_path: Path, given: object, exact: bool) -> None:
    assert read_arguments({"models": str(tmp_path), "exact": given})[0].exact is exact
