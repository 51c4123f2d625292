"""The configuration files of the section "Growing" can be read by what is at hand; none of these servers runs here."""

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "apps/serve/README.md", ROOT / "apps/README.md")


def blocks(language: str) -> list[str]:
    """The examples in that language of the section, in order."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        if found := re.search(r"^(#+) Growing$(.*?)(?=^\1 |\Z)", text, re.DOTALL | re.MULTILINE):
            return re.findall(rf"^```{language}\n(.*?)^```", found[2], re.DOTALL | re.MULTILINE)
    raise AssertionError("No page has a section Growing.")


def test_tensorflow_servings_models() -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    (text,) = [block for block in blocks("pbtxt") if "model_config_list" in block]
    read = text_format.Parse(text, config.ModelServerConfig())
    (model,) = read.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)


def test_tensorflow_servings_batches() -> None:
    """Its message is not in the Python package: the field names are those of session_bundle_config.proto."""
    (text,) = [block for block in blocks("pbtxt") if "max_batch_size" in block]
    wrapped = {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}
    fields: dict[str, list[int]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            found = re.fullmatch(r"(\w+)(?: \{ value: (\d+) \}|: (\d+))", line)
            assert found, line
            assert (found[2] is not None) == (found[1] in wrapped), line
            fields.setdefault(found[1], []).append(int(found[2] or found[3]))
    assert fields.keys() == wrapped | {"allowed_batch_sizes"}
    sizes = fields["allowed_batch_sizes"]
    assert sizes == sorted(sizes)
    assert fields["max_batch_size"] == sizes[-1:]  # TensorFlow Serving refuses others


def test_openvino_model_server() -> None:
    (text,) = blocks("json")
    (model,) = json.loads(text)["model_config_list"]
    assert model["config"].keys() >= {"name", "base_path"}


def yaml_documents() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return [yaml.safe_load(block) for block in blocks("yaml")]


def test_kserve() -> None:
    runtime, own = [document for document in yaml_documents() if document.get("kind") == "InferenceService"]
    assert runtime["spec"]["predictor"]["model"]["modelFormat"]["name"] == "tensorflow"
    predictor = own["spec"]["predictor"]
    (container,) = predictor["containers"]
    words = [str(word) for word in container["args"]]
    assert words[words.index("--port") + 1] == str(container["ports"][0]["containerPort"])
    delay = float(words[words.index("--drain-delay") + 1])
    from apps.serve.settings import Settings

    assert predictor["terminationGracePeriodSeconds"] > delay + Settings().drain_seconds


def test_ray_serve(tmp_path: Path) -> None:
    schema = pytest.importorskip("ray.serve.schema")
    from apps.serve.ray_deployment import read_arguments

    (document,) = [document for document in yaml_documents() if "applications" in document]
    read = schema.ServeDeploySchema(**document)
    (application,) = read.applications
    assert application.import_path == "apps.serve.ray_deployment:app"
    assert read_arguments({**application.args, "models": str(tmp_path)})[1] == 2


def test_systemd() -> None:
    (text,) = blocks("ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    assert " serve /srv/saved_models" in unit["Service"]["ExecStart"]


@pytest.mark.parametrize("language", ["nginx", "caddy", "dockerfile", "sh"])
def test_the_others_have_their_brackets(language: str) -> None:
    for text in blocks(language):
        assert text.count("{") == text.count("}")
        assert text.count("[") == text.count("]")
        assert text.count('"') % 2 == text.count("'") % 2 == 0
    assert blocks(language)
