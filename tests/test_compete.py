"""`kerascnn compete` as a user runs it: real processes, real files, killed and resumed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import ROOT, kerascnn, paint

from apps import files
from apps.console import Console
from apps.submission import score_submission
from callbacks.snapshots import read_snapshot
from kerascnn.export import read_metadata
from pipelines import open_dataset

QUICK = ("--epochs", 3, "--batch-size", 8, "--precision", "float32", "--width", 0.125, "--image-size", 16)


def test_digits_run_folder_is_complete(digits_run) -> None:
    folder, _ = digits_run
    run = folder / "runs" / "digits"
    names = {path.name for path in run.iterdir()}
    assert names == {
        "recipe.json",
        "result.json",
        "history.csv",
        "report.html",
        "submission.csv",
        "validation.csv",
        "probabilities.csv",
        "checkpoints",
        "model.keras",
        "classifier.json",
        "logs",
    }
    assert not list(folder.rglob("*unfinished*"))


def test_digits_score_is_good_after_a_short_training(digits_run) -> None:
    everything = json.loads((digits_run[0] / "runs/digits/result.json").read_text())
    assert everything["alarms"] == []
    result = everything["heads"]["label"]
    assert result["hidden_accuracy"] >= 0.97
    assert result["expected"]["low"] <= result["hidden_accuracy"] <= result["expected"]["high"]


def test_digits_are_never_mirrored(digits_run) -> None:
    assert json.loads((digits_run[0] / "runs/digits/recipe.json").read_text())["recipe"]["flip"] is False


def test_submission_has_the_rows_and_order_of_the_test_table(digits_run, cache) -> None:
    submission = pd.read_csv(digits_run[0] / "runs/digits/submission.csv", dtype=str)
    test = pd.read_csv(cache / "digits-1/test.csv", dtype=str)
    assert submission.columns.tolist() == ["image", "label"]
    assert submission["image"].tolist() == test["image"].tolist()
    assert set(submission["label"]) <= {str(digit) for digit in range(10)}


def test_reported_score_is_that_of_the_submission(digits_run, cache) -> None:
    submission = pd.read_csv(digits_run[0] / "runs/digits/submission.csv", dtype=str)
    answers = pd.read_csv(cache / "digits-1/answers.csv", dtype=str)
    score = (submission["label"] == answers["label"]).mean()
    result = json.loads((digits_run[0] / "runs/digits/result.json").read_text())
    assert result["heads"]["label"]["hidden_accuracy"] == pytest.approx(score)


def test_probabilities_sum_to_one_and_agree_with_the_submission(digits_run) -> None:
    run = digits_run[0] / "runs/digits"
    table = pd.read_csv(run / "probabilities.csv", index_col="image")
    submission = pd.read_csv(run / "submission.csv", dtype=str)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    assert table.idxmax(axis=1).tolist() == submission["label"].tolist()


def test_progress_is_plain_lines_when_the_output_is_no_terminal(digits_run) -> None:
    lines = digits_run[1].stdout.splitlines()
    assert sum("training: epoch" in line for line in lines) == 6
    assert "\x1b" not in digits_run[1].stdout
    assert digits_run[1].stderr == ""


def test_estimate_is_printed_before_the_answers_are_read(digits_run) -> None:
    text = digits_run[1].stdout
    assert (
        text.index("expected  label")
        < text.index("wrote     runs/digits/submission.csv")
        < text.index("score     label")
    )


def test_saved_model_needs_nothing_but_tensorflow_and_equals_training_bit_by_bit(digits_run, cache) -> None:
    """Decode in a process that cannot import this toolkit; compare with what training decoded."""
    from pipelines.encoded import Encoded
    from pipelines.pictures import load_pictures

    saved_model = digits_run[0] / "saved_models/digits/1"
    paths = sorted((cache / "digits-1/test").iterdir())[:20]
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "data = [open(path, 'rb').read() for path in sys.argv[3:]]\n"
        "pixels = np.stack([model.signatures['decode'](image_bytes=tf.constant(d))['image'] for d in data])\n"
        "from_bytes = model.signatures['serving_bytes'](image_bytes=tf.constant(data))['label'].numpy()\n"
        "from_pixels = model.signatures['serving_default'](image=tf.constant(pixels))['label'].numpy()\n"
        "np.savez(sys.argv[2], pixels=pixels, from_bytes=from_bytes, from_pixels=from_pixels)\n"
        "assert not {'kerascnn', 'pipelines', 'apps'} & set(sys.modules), 'not alone'\n"
    )
    out = digits_run[0] / "alone.npz"
    command = [sys.executable, "-c", code, str(saved_model), str(out), *map(str, paths)]
    subprocess.run(command, check=True, cwd="/", capture_output=True)
    alone = np.load(out)
    size = tuple(read_metadata(saved_model)["image_size"])
    np.testing.assert_array_equal(alone["pixels"], load_pictures(Encoded.files(paths), size)[0])
    np.testing.assert_array_equal(alone["from_bytes"], alone["from_pixels"])
    table = pd.read_csv(digits_run[0] / "runs/digits/probabilities.csv", index_col="image")
    names = [f"test/{path.name}" for path in paths]
    np.testing.assert_allclose(alone["from_pixels"], table.loc[names].to_numpy(), atol=1e-5)


def test_canary_examples_carry_the_right_answers(digits_run) -> None:
    import base64

    saved_model = digits_run[0] / "saved_models/digits/1"
    canary = json.loads((saved_model / "assets.extra/canary.json").read_text())
    data = [base64.b64decode(text) for text in canary["image_bytes"]]
    answers = tf.saved_model.load(str(saved_model)).signatures["serving_bytes"](image_bytes=tf.constant(data))
    np.testing.assert_allclose(answers["label"], canary["probabilities"]["label"], atol=1e-5)


def test_two_heads_a_group_and_messy_files(run_cli, run_here, tmp_path) -> None:
    """Two label columns, a group, a row without file, an unreadable picture, unreadable and repeated hidden ones."""
    root = tmp_path / "messy data"
    rows = ["name;owner id;hair colour/tone;größe"]
    for index in range(48):
        colour = [(200, 40, 40), (40, 200, 40), (40, 40, 200)][index % 3]
        paint(root / "train" / f"é{index:02d}.png", colour, seed=index)
        rows.append(f"é{index:02d};{index // 4};{'xyz'[index % 3]}.;{['klein', 'groß'][index % 2]}")
    rows.append("gone;99;x.;klein")
    (root / "train" / "é01.png").write_bytes(b"")
    (root / "train.csv").write_bytes(("\ufeff" + "\r\n".join(rows)).encode())
    (root / "test").mkdir()
    paint(root / "test" / "2.png", (40, 200, 40))
    (root / "test" / "10.png").write_bytes(b"no picture")
    (root / "test.csv").write_text("name\n2\n10\n404\n2\n")
    options = ("--target", "hair colour/tone", "--target", "größe", "--group", "owner id", *QUICK)

    process = run_here("compete", root, *options, "--strict")
    assert process.returncode == 2
    assert "`--strict` allows nothing to be left out, and 4 things would be" in process.stderr

    process = run_cli("compete", root, *options, "--out", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    assert "1 row of train.csv without a picture (such as gone)" in process.stdout
    assert "é01.png: the file is empty (0 bytes)" in process.stdout
    assert "1 row of test.csv without a picture (predicted by class frequency)" in process.stdout
    submission = pd.read_csv(tmp_path / "out/submission.csv", dtype=str)
    assert submission.columns.tolist() == ["name", "hair colour/tone", "größe"]
    assert submission["name"].tolist() == ["2", "10", "404", "2"]
    assert submission.iloc[0].tolist() == submission.iloc[3].tolist()
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert set(result["heads"]) == {"hair colour/tone", "größe"}
    assert result["expected"]["value"] == pytest.approx(
        np.mean([one["validation_accuracy"] for one in result["heads"].values()])
    )
    assert (tmp_path / "saved_models/out/1/saved_model.pb").is_file()


def test_folds_estimate_on_every_picture_and_export_their_average(run_cli, colours, tmp_path) -> None:
    process = run_cli("compete", colours, *QUICK, "--val", 3, "--out", "out")
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["heads"]["label"]["expected"]["pictures"] == 60
    assert len(result["best_epochs"]) == 3
    assert sorted(set(pd.read_csv(tmp_path / "out/history.csv")["fold"])) == [1, 2, 3]


def test_training_on_everything_expects_nothing(run_cli, colours, tmp_path) -> None:
    process = run_cli("compete", colours, *QUICK, "--val", 0, "--out", "out")
    assert process.returncode == 0, process.stderr
    assert "none held out: no score expected" in process.stdout
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["heads"]["label"]["expected"] is None
    assert result["heads"]["label"]["hidden_accuracy"] > 0.5


def test_dry_run_prints_the_plan_and_writes_nothing(run_here, colours, tmp_path) -> None:
    before = sorted(tmp_path.rglob("*"))
    process = run_here("compete", colours, *QUICK, "--dry-run")
    assert process.returncode == 0, process.stderr
    for part in (
        "60 labelled pictures",
        "6 held out",
        "9 to predict",
        "airbench94",
        "3 epochs of 6 steps of 8 pictures",
        "time      about",
    ):
        assert part in process.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_batch_is_not_larger_than_what_the_hardest_pictures_of_the_training_part_fill(run_here, colours) -> None:
    hard = ("--set", "hardest=0.5", "--set", "scales=[[0.8,0.5]]")
    process = run_here("compete", colours, "--dry-run", "--image-size", 20, "--batch-size", 40, "--epochs", 8, *hard)
    assert process.returncode == 0, process.stderr
    # 60 pictures, 6 of them held out: 27 are half of the rest.
    assert "8 epochs of 2 steps of 27 pictures" in process.stdout
    assert "epochs 1 to 4 at" in process.stdout
    assert "from epoch 3 on the hardest 50.0 % of the pictures, steps an epoch: 1\n" in process.stdout


def test_second_run_takes_a_new_folder_and_version_and_quiet_prints_nothing(digits_run, run_cli, tmp_path) -> None:
    shutil.copytree(digits_run[0], tmp_path, dirs_exist_ok=True)
    process = run_cli("compete", "digits", "--epochs", 1, "--width", 0.125, "--quiet")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits", "digits-2"]
    assert sorted(path.name for path in (tmp_path / "saved_models/digits").iterdir()) == ["1", "2"]


def test_existing_output_folder_is_left_alone(run_here, colours, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    process = run_here("compete", colours, "--out", "mine")
    assert process.returncode == 2
    assert process.stderr == ("kerascnn: error: mine exists. Choose another `--out`, or go on with it by `--resume`.\n")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compete", "nowhere"), "There is no file or folder nowhere"),
        (("compete", "digits", "--model", "resnet10"), "Unknown network 'resnet10'. Did you mean resnet110"),
        (("compete", "digits", "--image-size", "big"), "`--image-size` must be a number of pixels"),
        (("compete", "digits", "--epochs", "many"), "Invalid value for '--epochs'"),
        (("compete", "digits", "--val", "0.9"), "`val` must be a fraction up to 0.5"),
        (("compete", "digits", "--target", "digit"), "train.csv has no column 'digit'"),
        (("compete", "digits", "--recipe", "digit"), "There is no recipe and no file 'digit'"),
        (("compete", "digits", "--resume"), "There is no interrupted run of digits"),
        (("compete", "digits", "--colour"), "No such option"),
        (("predict", "nowhere", "."), "There is no SavedModel in nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run_here, tmp_path, arguments, message) -> None:
    paint(tmp_path / "a.png", (1, 2, 3))
    process = run_here(*arguments)
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stderr.startswith("kerascnn: error: ")
    assert process.stderr.count("\n") == 1


def test_unwritable_output_is_an_error_before_training(run_here, colours) -> None:
    process = run_here("compete", colours, *QUICK, "--out", "/proc/no/run")
    assert process.returncode == 2
    assert process.stderr.startswith("kerascnn: error: /proc/no")
    assert "training" not in process.stdout


@pytest.mark.parametrize(("model", "finished"), [("resnet9", False), ("airbench94", True)])
def test_full_disk_is_one_line_and_damages_nothing(colours, tmp_path, model, finished) -> None:
    """The system refuses files over 700 kB, as a full disk does: the first checkpoint, or only TensorFlow's graph."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))

    command = ("compete", colours, *QUICK, "--model", model, "--out", "out")
    process = kerascnn(*command, cwd=tmp_path, preexec_fn=limit)
    assert process.returncode == 2
    assert ("epoch 3 of 3" in process.stdout) == finished
    assert "File too large. What is finished is kept; go on with: kerascnn compete" in process.stderr
    assert process.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*unfinished*"))
    best = read_snapshot(tmp_path / "out/checkpoints/1/best.npz")[1]
    assert finished or best["epoch"] == 0
    again = kerascnn("compete", colours, "--resume", "--out", "out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out/submission.csv").is_file()


def test_backend_that_cannot_export_is_refused_before_anything_is_read(monkeypatch) -> None:
    from apps.compete import compete
    from apps.run_folder import Order

    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"set KERAS_BACKEND to tensorflow or jax. Received: torch"):
        compete(Order("nowhere", {}, {}, "saved_models", False))


def test_unwritable_saved_models_folder_is_found_before_training(run_here, colours) -> None:
    process = run_here("compete", colours, *QUICK, "--saved-models", "/proc/x", "--dry-run")
    assert process.returncode == 2
    assert process.stderr.startswith("kerascnn: error: /proc/x: cannot be written to")


def test_unusable_answers_cost_nothing_but_the_score(run_cli, colours, tmp_path) -> None:
    (colours / "answers.csv").write_text("image,colour\n000,red\n")
    process = run_cli("compete", colours, *QUICK, "--epochs", 1, "--out", "out")
    assert process.returncode == 0
    assert "The answers have no column 'label', so it is not scored" in process.stderr
    assert (tmp_path / "out/report.html").is_file()
    assert "hidden_accuracy" not in json.loads((tmp_path / "out/result.json").read_text())["heads"]["label"]


def test_class_only_in_the_test_part_is_said_when_scoring(colours, capsys) -> None:
    text = (colours / "answers.csv").read_text()
    (colours / "answers.csv").write_text(text.replace("000,red", "000,violet"))
    ids, data = pd.read_csv(colours / "test.csv", dtype=str)["image"].to_numpy(), open_dataset(colours)
    red = np.tile(np.eye(3)[data.classes["label"].index("red")], (len(ids), 1))
    scores = score_submission(ids, {"label": red}, data, Console())
    assert scores["label"]["accuracy"] == pytest.approx(2 / 9)  # of three red ones, one is called violet now
    assert "label: 'violet' occurs only in the test part, so it could not be predicted" in capsys.readouterr().err


def test_label_that_occurs_once_is_learnt_from_with_a_warning(run_here, colours) -> None:
    text = (colours / "train.csv").read_text()
    (colours / "train.csv").write_text(text.replace("000,red", "000,violet"))
    process = run_here("compete", colours, *QUICK, "--dry-run")
    assert process.returncode == 0
    assert process.stderr == "warning: label: violet occurs once: it cannot be both learnt and validated.\n"


def test_diverged_training_is_one_line_and_publishes_nothing(run_cli, colours, tmp_path) -> None:
    process = run_cli("compete", colours, *QUICK, "--lr", "1e30", "--out", "out")
    assert process.returncode == 2
    assert re.search(r"Training diverged in epoch 1, step \d+, at learning rate \d.*loss is (nan|inf)", process.stderr)
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "saved_models/out").exists()


def test_debug_shows_the_traceback(run_cli) -> None:
    debug = run_cli("compete", "nowhere", "--debug")
    assert "Traceback" in debug.stderr
    assert "FileNotFoundError: There is no file or folder nowhere" in debug.stderr


def test_terminal_shows_a_bar_with_the_time_left(colours, tmp_path) -> None:
    import pty

    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "apps.cli", "compete", colours, *QUICK, "--epochs", 2]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, env=environment, stdout=terminal, stderr=subprocess.PIPE
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0, process.stderr.read()
    text = shown.decode()
    assert "decoding" in text
    assert "training epoch 1 of 2 · loss" in text
    assert "left" in text
    assert "━" in text


def test_lines_instead_of_a_bar_come_every_so_often(monkeypatch, capsys) -> None:
    import apps.console

    now = [100.0]
    monkeypatch.setattr(apps.console.time, "monotonic", lambda: now[0])
    with apps.console.Console().progress("training", 100) as bar:
        for done in range(1, 101):
            now[0] += 1.0
            bar.update(done, "loss 1.5")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  training loss 1.5, 15 of 100, 1 min 25 s left"
    assert len(lines) == 6


def test_a_run_belongs_to_one_process(tmp_path) -> None:
    from apps import run_folder

    (tmp_path / "recipe.json").write_text("{}")
    code = (
        "import sys, pathlib; from apps import run_folder\n"
        "with run_folder.lock(pathlib.Path(sys.argv[1])): print('inside')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with run_folder.lock(tmp_path):
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
        )
    assert "Another process is working in" in other.stderr
    with run_folder.lock(tmp_path):  # free again
        pass


def start(colours: Path, out: Path, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "apps.cli", "compete", colours, *QUICK, "--epochs", 40, "--out", out, *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=out.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    for line in process.stdout:
        if f"epoch {epoch} of" in line:
            return
    pytest.fail(f"the training ended early: {process.stderr.read()}")


def test_interrupt_keeps_the_best_snapshot_and_resume_goes_on(colours, tmp_path) -> None:
    process = start(colours, tmp_path / "out")
    wait_for_epoch(process, 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped. The best snapshot is" in errors
    assert f"Go on with: kerascnn compete {colours} --resume --out {tmp_path / 'out'}" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "out/checkpoints/1/best.npz").is_file()
    assert not list(tmp_path.rglob("*unfinished*"))
    again = kerascnn("compete", colours, "--resume", "--out", tmp_path / "out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "training: going on" in again.stdout
    history = pd.read_csv(tmp_path / "out/history.csv")
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))


def test_resume_refuses_changed_data_and_a_changed_recipe(run_cli, run_here, colours, tmp_path) -> None:
    assert run_cli("compete", colours, *QUICK, "--epochs", 1, "--out", "out").returncode == 0
    process = run_here("compete", colours, "--resume", "--out", "out")
    assert (process.returncode, "out is finished" in process.stderr) == (2, True)
    (tmp_path / "out/result.json").unlink()
    process = run_here("compete", colours, "--resume", "--out", "out", "--epochs", 5)
    assert (process.returncode, "epochs is 1, asked for 5" in process.stderr) == (2, True)
    table = (colours / "train.csv").read_text()
    (colours / "train.csv").write_text(table.replace("000,red", "000,blue"))
    process = run_here("compete", colours, "--resume", "--out", "out")
    assert process.returncode == 2
    assert re.search(
        r"have changed since out was begun: labels \(was 60, \w+, is 60, \w+\), validation split \(.*\)\. Start",
        process.stderr,
    )


def test_version(run_here) -> None:
    assert run_here("--version").stdout == "kerascnn 0.1.0\n"


def test_every_option_is_explained() -> None:
    from typer.main import get_command

    from apps.cli import app

    for name, command in get_command(app).commands.items():
        for parameter in command.params:
            assert len(parameter.help or "") > 10, f"{name} {parameter.name}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_names_the_commands(run_cli, shell) -> None:
    variables = {"_KERASCNN_COMPLETE": f"complete_{shell}", "COMP_WORDS": "kerascnn com", "COMP_CWORD": "1"}
    variables |= {"_TYPER_COMPLETE_ARGS": "kerascnn com", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    process = run_cli(env={**os.environ, **variables, "PYTHONPATH": str(ROOT)})
    assert "compete" in process.stdout


def test_a_file_appears_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("what was there")
    with pytest.raises(RuntimeError), files.whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert path.read_text() == "what was there"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
