"""The packages import only what the architecture allows, so that each can be used without the others."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"kerascnn", "pipelines", "callbacks", "apps", "tests"}
# package: which of our packages it may import, and which of the heavy libraries
ALLOWED = {
    "kerascnn": ({"kerascnn"}, {"keras", "numpy"}),
    "callbacks": ({"callbacks"}, {"keras", "numpy", "matplotlib"}),
    "pipelines": (
        {"pipelines"},
        {
            "tensorflow",
            "keras",
            "numpy",
            "pandas",
            "PIL",
            "sklearn",
            "albumentations",
            "keras_cv",
            "tensorflow_datasets",
            "psutil",
            "cv2",
            "google",  # protocol buffers, which tf.train.Example is one of
        },
    ),
    "apps": ({"apps", "kerascnn", "pipelines", "callbacks"}, None),
}
# file: what it may import on top, and why
EXCEPTIONS = {
    "kerascnn/export.py": {"tensorflow"},  # writes SavedModels
    "kerascnn/grad_cam.py": {"tensorflow"},  # gradients inside the graph of a SavedModel
    "kerascnn/warmup_requests.py": {"tensorflow"},  # tensors as protocol buffers, in a TFRecord
    "kerascnn/export_formats.py": {"onnxruntime", "openvino", "ai_edge_litert"},  # extras, each inside its function
    "kerascnn/batch_norm.py": {"tensorflow"},  # one fused kernel, only where TensorFlow is the backend
    "kerascnn/convolution.py": {"tensorflow"},  # one gradient, only where TensorFlow is the backend
}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imported_packages(path: Path) -> set[str]:
    """Top-level names of everything a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_package_imports_only_what_its_rule_allows(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    own, libraries = ALLOWED[name.split("/")[0]]
    found = imported_packages(path)
    assert found & OURS <= ({"apps"} if name.startswith("apps/serve/") else own)
    if libraries is not None:
        others = found - OURS - set(sys.stdlib_module_names)
        assert others <= libraries | EXCEPTIONS.get(name, set())


def test_server_imports_nothing_of_the_toolkit_but_itself() -> None:
    """A SavedModel stands alone: `apps/serve` can be copied into another project."""
    for path in sorted((ROOT / "apps/serve").glob("*.py")):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {str(node.module) for node in tree if isinstance(node, ast.ImportFrom)}
        assert all(name.startswith("apps.serve") for name in names if name.split(".")[0] == "apps"), path


def test_networks_import_tensorflow_only_where_it_is_the_backend() -> None:
    """At the top of a file only exporters may, imported when asked for; the builders must import under JAX alone."""
    exporters = {"export.py", "grad_cam.py", "warmup_requests.py"}
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        if path.parent.name in ("kerascnn", "callbacks") and path.name not in exporters:
            assert "tensorflow" not in names, path
            top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
            modules = {str(node.module).split(".")[-1] for node in top} | {
                alias.name for node in top if node.module == "kerascnn" for alias in node.names
            }
            assert not modules & {name.removesuffix(".py") for name in exporters}, path


def test_exporter_is_imported_when_it_is_asked_for() -> None:
    import kerascnn

    assert kerascnn.export_model is importlib.import_module("kerascnn.export").export_model
    with pytest.raises(AttributeError, match="module 'kerascnn' has no attribute 'export_modle'"):
        _ = kerascnn.export_modle


def test_callbacks_work_alone_with_nothing_but_keras_and_numpy(tmp_path) -> None:
    """The folder copied into somebody's project; under the JAX backend TensorFlow is not loaded at all."""
    shutil.copytree(ROOT / "callbacks", tmp_path / "callbacks", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys, keras\n"
        "before = set(sys.modules)\n"
        "import callbacks\n"
        "added = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "assert added == {'callbacks'}, added\n"
        "assert keras.config.backend() == 'tensorflow' or 'tensorflow' not in sys.modules\n"
        "assert float(callbacks.LinearSchedule(1.0, steps=4)(1)) == 0.75\n"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_everything_public_is_in_the_index_of_its_package() -> None:
    """`callbacks.<Name>` for every schedule, callback and optimiser."""
    import callbacks

    defined = set()
    for path in (ROOT / "callbacks").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            kinds = {
                base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
                for base in getattr(node, "bases", [])
            }
            if (
                isinstance(node, ast.ClassDef)
                and not node.name.startswith("_")
                and kinds
                & {
                    "Schedule",
                    "_Triangular",
                    "_Combined",
                    "Callback",
                    "StatefulCallback",
                    "RateCallback",
                    "Grouped",
                    "Adam",
                }
            ):
                defined.add(node.name)
    defined -= {"StatefulCallback", "RateCallback", "Schedule"}  # bases
    assert len(defined) > 35
    assert defined <= set(callbacks.__all__)
    assert all(hasattr(callbacks, name) for name in callbacks.__all__)


def test_help_needs_neither_tensorflow_nor_keras() -> None:
    code = (
        "import sys\n"
        "from apps.cli import main\n"
        "try: main(['compete', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
