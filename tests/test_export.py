"""Versions of an exported model: counted up, whole or not at all, cleaned of what a killed export left."""

import os
import subprocess
import sys

import pytest

from kerascnn.export import Classifier, export_model, new_version, read_metadata, versions


def test_versions_count_up_and_none_is_replaced(tmp_path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    for expected in ("8", "9"):
        with new_version(tmp_path) as (unfinished, version):
            (unfinished / "saved_model.pb").write_text(expected)
        assert version == tmp_path / expected
    assert versions(tmp_path) == [7, 8, 9]
    assert (tmp_path / "8/saved_model.pb").read_text() == "8"


def test_failed_export_leaves_nothing(tmp_path) -> None:
    with pytest.raises(RuntimeError), new_version(tmp_path) as (unfinished, _):
        (unfinished / "saved_model.pb").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_left_over_of_a_killed_export_is_removed_and_that_of_a_running_one_is_not(tmp_path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".unfinished-1-{ended.pid}").mkdir()
    running = tmp_path / f".unfinished-1-{os.getppid()}"
    running.mkdir()
    with new_version(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "1"]


def test_classifier_needs_named_heads_and_an_export_its_class_names(tmp_path) -> None:
    with pytest.raises(ValueError, match="at least one network"):
        Classifier([], (8, 8), decode=None, resize=None)
    with pytest.raises(ValueError, match="must have an entry 'classes'"):
        export_model(None, tmp_path, {"size": 3})
    with pytest.raises(FileNotFoundError, match="no SavedModel written by kerascnn"):
        read_metadata(tmp_path)
