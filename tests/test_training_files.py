"""The files of the section "Several devices, several hosts" say what the command line and their readers understand."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from conftest import ROOT

from apps.cli import app

TEXT = (ROOT / "apps/README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Several devices, several hosts$(.*?)(?=^## )", TEXT, re.DOTALL | re.MULTILINE)[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("script", blocks("bash"), ids=["train.sh", "train.slurm"])
def test_scripts_train_and_resume(script: str, tmp_path: Path) -> None:
    """Each is run, with programs that write down how they were called; the second time there is a run."""
    called = tmp_path / "called"
    for name in ("srun", "kerascnn"):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\necho "$KERAS_BACKEND {name} $@" >> {called}\n')
        program.chmod(0o755)
    script = script.replace("/shared/", f"{tmp_path}/")
    (tmp_path / "train").write_text(script)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for _ in range(2):
        subprocess.run(["bash", "train"], cwd=tmp_path, env=environment, check=True)
        (tmp_path / "runs/big").mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs/big/recipe.json").touch()
    first, second = called.read_text().splitlines()
    assert first.startswith("jax ")
    assert "--resume" not in first
    assert second.rstrip().endswith("--resume")
    assert known_options() >= set(re.findall(r"--[a-z-]+", second[second.index("kerascnn compete") :]))


def test_kubernetes_gives_every_pod_its_number_and_the_first_its_name() -> None:
    yaml = pytest.importorskip("yaml")
    (text,) = blocks("yaml")
    service, job = yaml.safe_load_all(text)
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (command,) = container["args"]
    name = job["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert f"--hosts {spec['completions']} --host $JOB_COMPLETION_INDEX" in command
    assert f"--coordinator {name}-0.{pod['subdomain']}:4444" in command
    assert {"name": "KERAS_BACKEND", "value": "jax"} in container["env"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert known_options() >= set(re.findall(r"--[a-z-]+", command))
    subprocess.run([shutil.which("bash") or "bash", "-n", "-c", command], check=True)


def known_options() -> set[str]:
    """All of `kerascnn compete`."""
    command = typer.main.get_command(app).commands["compete"]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
