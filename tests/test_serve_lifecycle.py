"""Versions come, go and break; what is served answers on. Fault numbers are those of the list in apps/serve."""

import asyncio
import functools
import gc
import os
import shutil
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from serving_examples import half_plus_two

from apps.serve import repository as repository_module
from apps.serve.attempt import Failure, try_load
from apps.serve.batching import Workers
from apps.serve.errors import Code, Refusal
from apps.serve.loading import load_servable
from apps.serve.model import AVAILABLE, END, LOADING, RETRIES, START, UNLOADING, Loaded, Model
from apps.serve.model_folder import Form, ModelFolder, Policy, find_form, find_models, read_policy
from apps.serve.repository import Repository
from apps.serve.settings import Settings
from apps.serve.signature import TensorSpec

POLL = 0.02
PATIENCE = 30.0  # seconds after which a test that waits has failed


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """Collections are as quick as in the server, which does the same."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine as a test, not for ever."""

    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **options), 2 * PATIENCE))

    return run


class FakeRunner:
    """Says which version it is, and whether it was closed."""

    name = "fake"

    def __init__(self, version: int) -> None:
        self.version, self.closed = version, False

    def close(self) -> None:
        self.closed = True


class FakeBatcher:
    """Nothing waits; closing can be made to hang."""

    def __init__(self, runner: FakeRunner, hangs: bool) -> None:
        self.runner, self.hangs, self.closed = runner, hangs, False

    async def close(self) -> None:
        assert not self.runner.closed
        if self.hangs:
            await asyncio.sleep(3600)
        self.closed = True


def fake_servable(version: int, text: str) -> SimpleNamespace:
    """What the text of a version's saved_model.pb asks for; "rank 2" has another input."""
    spec = TensorSpec("x", np.dtype("float32"), (None,) * (2 if "rank 2" in text else 1))
    signature = SimpleNamespace(inputs={"x": spec}, outputs={})
    runner = FakeRunner(version)
    return SimpleNamespace(
        version=version,
        signatures={"serving_default": signature},
        classes={"colour": ["red", "blue" if "blue" in text else "green"]},
        runner=runner,
        batcher=FakeBatcher(runner, "hangs" in text),
    )


class FakeLoad:
    """Loads what the files say; `gate` holds it up until it is set."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.loaded: dict[int, SimpleNamespace] = {}
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0

    def __call__(self, folder: Path, name: str, version: int) -> SimpleNamespace:
        text = (folder / "saved_model.pb").read_text()
        self.calls.append(version)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.entered.set()
        try:
            assert self.gate.wait(PATIENCE)
            if "broken" in text:
                raise ValueError(f"The canary of {folder} answers NaN.\nand more")
            if "unreachable" in text:
                raise OSError("Stale file handle")
        finally:
            self.at_once -= 1
        servable = fake_servable(version, text)
        self.loaded[version] = servable
        return servable


def write(folder: Path, text: str = "good") -> Path:
    """A version for `FakeLoad`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_text(text)
    return folder


@asynccontextmanager
async def serving(folder: Path, load: Callable[..., Any], **options: Any) -> AsyncIterator[Repository]:
    repository = Repository(Settings(folder, poll_seconds=POLL, **options), load)
    await repository.start()
    try:
        yield repository
    finally:
        await repository.stop()


def answering(repository: Repository, name: str = "m", **which: Any) -> int:
    """The version that a request gets."""
    with repository.use(name, **which) as servable:
        return servable.version


def states(repository: Repository, name: str = "m") -> dict[int, str]:
    return {status.version: status.state for status in repository.status(name)}


def why(repository: Repository, version: int) -> tuple[str, str]:
    (status,) = repository.status("m", version)
    return status.error_code, status.error_message


def refusal(call: Callable[[], Any]) -> tuple[Code, str]:
    with pytest.raises(Refusal) as refused:
        call()
    return refused.value.code, refused.value.message


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


# What is on disk


def test_each_form_of_folder_is_recognised(tmp_path: Path) -> None:
    write(tmp_path / "all/flowers/3")
    write(tmp_path / "all/fruits/0012")
    write(tmp_path / "single")

    def found(folder: Path) -> tuple[Form | None, Mapping[str, Sequence[int]]]:
        form = find_form(folder)
        return form, {name: list(model.versions) for name, model in find_models(folder, form).items()}

    assert found(tmp_path / "all") == (Form.MODELS, {"flowers": [3], "fruits": [12]})
    assert found(tmp_path / "all/flowers") == (Form.MODEL, {"flowers": [3]})
    assert found(tmp_path / "all/flowers/3") == (Form.SAVED_MODEL, {"flowers": [3]})
    assert found(tmp_path / "all/fruits/0012") == (Form.SAVED_MODEL, {"fruits": [12]})
    assert found(tmp_path / "single") == (Form.SAVED_MODEL, {"single": [1]})


def test_an_unfinished_version_does_not_pass_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "flowers/1").mkdir(parents=True)
    assert find_form(tmp_path / "flowers") is None
    assert list(find_models(tmp_path / "flowers", None)) == ["flowers"]
    assert find_models(tmp_path, None)["flowers"].versions[1].whole is False


def test_only_numbers_are_versions_and_links_are_followed(tmp_path: Path) -> None:
    for name in ("0", "007", "8", ".unfinished-9", "10.bak", "-1", "٣", str(1 << 63), "1e3"):
        write(tmp_path / "m" / name)
    (tmp_path / "m/11").write_text("a file")
    write(tmp_path / "elsewhere/build", "good")
    (tmp_path / "m/12").symlink_to(tmp_path / "elsewhere/build")
    (tmp_path / "m/13").symlink_to(tmp_path / "nowhere")
    versions = find_models(tmp_path, Form.MODELS)["m"].versions
    assert sorted(versions) == [0, 7, 8, 12]
    assert versions[12].whole


def test_a_model_without_a_version_is_told_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "m")
    assert (
        find_models(tmp_path, None)["m"].problem == "saved_model.pb lies beside no version: move it into a folder m/1."
    )


def test_links_in_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    (tmp_path / "m/1/self").symlink_to(tmp_path / "m/1")
    assert find_models(tmp_path, Form.MODELS)["m"].versions[1].whole


def test_fault_23_duplicate_numbers_are_decided_and_told(tmp_path: Path) -> None:
    for name in ("01", "1", "001"):
        write(tmp_path / "m" / name)
    model = find_models(tmp_path, Form.MODELS)["m"]
    assert model.versions[1].path.name == "1"
    assert model.duplicates == ("01", "001")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("{}", Policy()),
        ('{"versions": "latest"}', Policy(1)),
        ('{"versions": {"latest": 3}}', Policy(3)),
        ('{"versions": "all"}', Policy(None)),
        ('{"versions": [3, 5], "labels": {"stable": 3}}', Policy(None, frozenset({3, 5}), {"stable": 3})),
    ],
)
def test_serving_json_is_read(text: str, policy: Policy) -> None:
    assert read_policy(text.encode()) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "nonsense",
        '{"version": "latest"}',
        '{"versions": "newest"}',
        '{"versions": []}',
        '{"versions": [true]}',
        '{"versions": ["3"]}',
        '{"versions": [-1]}',
        '{"versions": {"latest": 0}}',
        '{"versions": {"latest": 1, "oldest": 1}}',
        '{"labels": {"stable": "3"}}',
        '{"labels": ["stable"]}',
        "[" * 100_000,
    ],
)
def test_nonsense_in_serving_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|not JSON"):
        read_policy(text.encode())


def test_a_missing_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist\. Give a folder with NAME/VERSION/"):
        Repository(Settings(tmp_path / "nowhere"), FakeLoad())
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"file is a file\."):
        Repository(Settings(tmp_path / "file"), FakeLoad())


# When a version counts as written, and when a failed one is tried again


def looked(folder: Path) -> ModelFolder:
    return find_models(folder, Form.MODELS).get("m", ModelFolder("m", {}, policy=None))


def test_fault_22_a_version_that_is_still_being_copied_is_left_alone(tmp_path: Path) -> None:
    model, folder = Model("m"), tmp_path / "m/1"
    write(folder)
    model.look(looked(tmp_path), now=0.0, pause=1.0)
    assert model.next(0.0) is None
    assert model.status()[0].state == START
    (folder / "variables").mkdir()
    model.look(looked(tmp_path), now=1.1, pause=1.0)
    assert model.next(1.1) is None
    (folder / "variables/variables.index").write_text("more")
    model.look(looked(tmp_path), now=2.2, pause=1.0)
    model.look(looked(tmp_path), now=2.3, pause=1.0)  # asked for in between: too early to tell
    assert model.next(2.3) is None
    model.look(looked(tmp_path), now=3.4, pause=1.0)
    assert model.next(3.4) is model.versions[1]


def test_failed_reads_are_tried_again_a_minute_apart_and_five_times(tmp_path: Path) -> None:
    model, tries = Model("m"), []
    write(tmp_path / "m/1")
    for now in range(3600):
        model.look(looked(tmp_path), float(now), pause=1.0)
        version = model.next(float(now))
        if version is not None:
            assert version.folder is not None
            tries.append(now)
            version.fail(Failure("UNKNOWN", "Stale file handle", passing=True), version.folder, float(now))
    assert tries == [1 + 60 * again for again in range(1 + RETRIES)]


def test_errors_that_may_pass_are_told_from_those_of_the_files(tmp_path: Path) -> None:
    import tensorflow as tf

    def kind(error: BaseException) -> Failure:
        def load(*_: object) -> Any:
            raise error

        failure = try_load(load, tmp_path, "m", 2)
        assert isinstance(failure, Failure)
        return failure

    assert kind(OSError("Stale file handle")) == Failure("UNKNOWN", "Stale file handle", True)
    assert kind(MemoryError()) == Failure("RESOURCE_EXHAUSTED", "MemoryError", True)
    assert kind(FileNotFoundError(f"{tmp_path}/variables")) == Failure("NOT_FOUND", "m/2/variables")
    assert kind(ValueError("first\nsecond")) == Failure("INVALID_ARGUMENT", "first")
    assert kind(StopIteration()) == Failure("UNKNOWN", "StopIteration")
    assert kind(SystemExit(2)) == Failure("UNKNOWN", "2")
    assert kind(tf.errors.DataLossError(None, None, "checksum")) == Failure("DATA_LOSS", "checksum")
    assert kind(Refusal(Code.INTERNAL, "The model failed.")) == Failure("INTERNAL", "The model failed.")


def test_finished_versions_are_listed_but_not_for_ever(tmp_path: Path) -> None:
    model = Model("m")
    for number in range(1, 40):
        write(tmp_path / f"m/{number}")
        model.look(looked(tmp_path), float(number), pause=0.0)
        version = model.next(float(number))
        assert version is not None
        assert version.number == number
        assert version.folder is not None
        model.take(version, Loaded(fake_servable(number, ""), version.folder))  # type: ignore[arg-type]
        for old, _ in model.give_up(float(number)):
            model.end(old)
    model.look(looked(tmp_path), 40.0, pause=0.0)
    listed = [(status.version, status.state) for status in model.status()]
    assert listed == [(39, AVAILABLE), *((number, END) for number in range(38, 28, -1))]


# Start


@asynchronous
async def test_fault_25_no_model_at_start_is_waited_for(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeLoad()) as repository:
        assert not repository.ready()
        assert repository.names() == []
        code, message = refusal(lambda: answering(repository))
        assert (code, message) == (Code.NOT_FOUND, "Servable not found for request: Latest(m)")
        code, message = refusal(lambda: repository.status("m"))
        assert (code, message) == (Code.NOT_FOUND, "Could not find any versions of model m")
        write(tmp_path / "m/5")
        await repository.settled()
        assert repository.ready()
        assert answering(repository) == 5


@asynchronous
async def test_start_serves_the_newest_that_loads(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    write(tmp_path / "m/2")
    write(tmp_path / "m/3", "broken")
    (tmp_path / "m/4").mkdir()
    async with serving(tmp_path, load) as repository:
        assert repository.ready()
        assert answering(repository) == 2
        assert states(repository) == {4: END, 3: END, 2: AVAILABLE}
        assert load.calls == [3, 2]


@asynchronous
async def test_what_has_lain_there_is_loaded_at_the_first_look(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    time.sleep(0.05)
    repository = Repository(Settings(tmp_path, poll_seconds=0.04), load := FakeLoad())
    await repository.start()
    assert repository._done == 1
    assert load.calls == [1]
    await repository.stop()


@asynchronous
async def test_a_folder_can_be_looked_at_once(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    repository = Repository(Settings(tmp_path, poll_seconds=0.0), FakeLoad())
    await repository.start()
    write(tmp_path / "m/2")
    await asyncio.sleep(0.1)
    assert answering(repository) == 1
    await repository.load("m")
    assert answering(repository) == 2
    await repository.stop()


@asynchronous
async def test_a_version_that_is_written_on_and_on_does_not_hold_up_the_start(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    write(tmp_path / "other/1")
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.wait(0.002):
            with (tmp_path / "other/1/saved_model.pb").open("a") as file:
                file.write("more")

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        async with asyncio.timeout(PATIENCE), serving(tmp_path, FakeLoad()) as repository:
            assert answering(repository) == 1
    finally:
        stop.set()
        writer.join()


# New versions


@asynchronous
async def test_fault_21_a_new_version_takes_over_when_it_is_loaded(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        load.gate.clear()
        load.entered.clear()
        write(tmp_path / "m/2")
        await until(load.entered.is_set)
        assert states(repository) == {2: LOADING, 1: AVAILABLE}
        assert answering(repository) == 1
        assert refusal(lambda: answering(repository, version=2))[1] == "Servable not found for request: Specific(m, 2)"
        load.gate.set()
        await repository.settled()
        assert answering(repository) == answering(repository, version=2) == 2
        assert states(repository) == {2: AVAILABLE, 1: END}
        assert refusal(lambda: answering(repository, version=1))[0] is Code.NOT_FOUND
        assert load.loaded[1].batcher.closed
        assert load.loaded[1].runner.closed
        assert refusal(lambda: repository.status("m", 99)) == (Code.NOT_FOUND, "Could not find version 99 of model m")


@asynchronous
async def test_fault_21_a_version_in_use_is_not_closed(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        with repository.use("m") as first, repository.use("m", version=1):
            write(tmp_path / "m/2")
            await until(lambda: states(repository).get(2) == AVAILABLE)
            await asyncio.sleep(5 * POLL)
            assert states(repository) == {2: AVAILABLE, 1: UNLOADING}
            assert answering(repository) == 2
            assert first.version == 1
            assert not load.loaded[1].batcher.closed
        await repository.settled()
        assert states(repository) == {2: AVAILABLE, 1: END}
        assert load.loaded[1].runner.closed


@asynchronous
async def test_loads_happen_one_after_the_other(tmp_path: Path) -> None:
    load = FakeLoad()
    for name in ("a", "b", "c"):
        write(tmp_path / name / "1")
    async with serving(tmp_path, load) as repository:
        assert repository.names() == ["a", "b", "c"]
        assert repository.ready()
    assert load.most_at_once == 1


@asynchronous
async def test_fault_22_a_broken_version_never_replaces_one_that_works(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        write(tmp_path / "m/2", "broken")
        await repository.settled()
        await asyncio.sleep(5 * POLL)
        assert answering(repository) == 1
        assert repository.ready()
        assert states(repository) == {2: END, 1: AVAILABLE}
        assert why(repository, 2) == ("INVALID_ARGUMENT", "The canary of m/2 answers NaN.")
        assert load.calls == [1, 2]
        write(tmp_path / "m/2", "good again")
        await repository.settled()
        assert answering(repository) == 2
        assert why(repository, 2) == ("OK", "")


@pytest.mark.parametrize(("text", "words"), [("rank 2", "serving_default"), ("blue", "class")])
@asynchronous
async def test_fault_22_another_interface_never_replaces_one_that_works(tmp_path: Path, text: str, words: str) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        write(tmp_path / "m/2", text)
        await repository.settled()
        assert answering(repository) == 1
        code, message = why(repository, 2)
        assert code == "FAILED_PRECONDITION"
        assert message.startswith("Version 2 cannot take the place of version 1: ")
        assert words in message
        assert load.loaded[2].runner.closed
        await repository.unload("m")  # the user's way to say that it is meant
        await repository.load("m")
        assert answering(repository) == 2


@asynchronous
async def test_fault_22_metadata_that_mean_nothing_never_replace_what_works(tmp_path: Path) -> None:
    class Load(FakeLoad):
        def __call__(self, *arguments: Any) -> SimpleNamespace:
            servable = super().__call__(*arguments)
            servable.classes = {"colour": ["red", "green"]} if servable.version != 2 else 7
            return servable

    write(tmp_path / "m/1")
    async with serving(tmp_path, Load()) as repository:
        write(tmp_path / "m/2")
        await repository.settled()
        assert answering(repository) == 1
        assert why(repository, 2)[0] == "FAILED_PRECONDITION"
        write(tmp_path / "m/3")
        await repository.settled()
        assert answering(repository) == 3


@asynchronous
async def test_fault_22_an_unreadable_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.serve import model_folder

    def files(folder: Path, *rest: Any) -> Any:
        if folder.name == "2" and locked:
            raise PermissionError(13, "Permission denied")
        return real(folder, *rest)

    real, locked = model_folder._files, True
    monkeypatch.setattr(model_folder, "_files", files)
    write(tmp_path / "m/1")
    write(tmp_path / "m/2")
    async with serving(tmp_path, FakeLoad()) as repository:
        await repository.settled()
        assert answering(repository) == 1
        assert why(repository, 2) == ("NOT_FOUND", "Version 2 cannot be read: Permission denied.")
        locked = False
        await repository.settled()
        assert answering(repository) == 2


@asynchronous
async def test_a_version_that_hangs_is_left_behind(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1", "hangs")
    async with serving(tmp_path, load, hang_seconds=0.05) as repository:
        write(tmp_path / "m/2")
        await repository.settled()
        assert states(repository) == {2: AVAILABLE, 1: END}
        assert not load.loaded[1].runner.closed  # a thread may still be inside


@asynchronous
async def test_files_that_change_while_they_are_served_are_told(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        write(tmp_path / "m/1", "overwritten")
        await repository.settled()
        await asyncio.sleep(5 * POLL)
        assert load.calls == [1]
        assert "changed after it was loaded" in why(repository, 1)[1]


@asynchronous
async def test_after_unloading_nothing_refers_to_a_version(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        with repository.use("m"):
            pass
        runner = weakref.ref(load.loaded.pop(1).runner)
        write(tmp_path / "m/2")
        await repository.settled()
        await until(lambda: bool(gc.collect() + 1) and runner() is None)  # the closing thread has to end first


# Versions that go


@asynchronous
async def test_fault_23_without_the_newest_version_the_one_before_is_served(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    write(tmp_path / "m/2")
    async with serving(tmp_path, load) as repository:
        assert answering(repository) == 2
        load.gate.clear()
        load.entered.clear()
        shutil.rmtree(tmp_path / "m/2")
        await until(load.entered.is_set)
        assert answering(repository) == 2
        load.gate.set()
        await repository.settled()
        assert answering(repository) == 1
        assert states(repository) == {2: END, 1: AVAILABLE}


@pytest.mark.parametrize("gone", ["m/1", "m", "."])
@asynchronous
async def test_fault_23_the_only_version_is_served_on_without_its_files(
    tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models"
    load = FakeLoad()
    write(folder / "m/1")
    async with serving(folder, load) as repository:
        (folder / gone).rename(tmp_path / "away")
        await asyncio.sleep(5 * POLL)
        await repository.settled()
        assert answering(repository) == 1
        assert repository.ready()
        assert states(repository) == {1: AVAILABLE}
        assert len([record for record in caplog.records if "cannot be read" in record.message]) == (gone == ".")
        (tmp_path / "away").rename(folder / gone)
        write(folder / "m/2")
        await repository.settled()
        assert answering(repository) == 2
        assert load.calls == [1, 2]


@asynchronous
async def test_fault_23_a_renamed_version_is_served_under_its_new_number(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    async with serving(tmp_path, FakeLoad()) as repository:
        (tmp_path / "m/1").rename(tmp_path / "m/7")
        await repository.settled()
        assert answering(repository) == 7
        assert states(repository) == {7: AVAILABLE, 1: END}


@asynchronous
async def test_fault_23_a_disk_that_hangs_stops_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m/1")
    answers, asked = threading.Event(), []

    def hang(*arguments: Any) -> Any:
        asked.append(1)
        assert answers.wait(PATIENCE)
        return find_models(*arguments)

    monkeypatch.setattr(repository_module, "SLOW_LOOK", 0.01)
    async with serving(tmp_path, FakeLoad()) as repository:
        monkeypatch.setattr(repository_module, "find_models", hang)
        await until(lambda: bool(asked))
        await asyncio.sleep(5 * POLL)
        assert len(asked) == 1  # looks do not pile up
        assert answering(repository) == 1
        write(tmp_path / "m/2")
        answers.set()
        await repository.settled()
        assert answering(repository) == 2


@asynchronous
async def test_a_broken_model_that_is_taken_away_does_not_keep_the_server_unready(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    write(tmp_path / "other/1", "broken")
    async with serving(tmp_path, FakeLoad()) as repository:
        assert not repository.ready()
        shutil.rmtree(tmp_path / "other")
        await repository.settled()
        assert repository.ready()
        assert repository.names() == ["m"]
        assert refusal(lambda: repository.status("other"))[0] is Code.NOT_FOUND


# serving.json


def tell(folder: Path, text: str) -> None:
    (folder / "serving.json").write_text(text)


@asynchronous
async def test_fault_23_rollback_to_a_lower_number(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/3")
    write(tmp_path / "m/5")
    async with serving(tmp_path, load) as repository:
        assert answering(repository) == 5
        load.gate.clear()
        tell(tmp_path / "m", '{"versions": [3]}')
        await until(lambda: states(repository).get(3) == LOADING)
        assert answering(repository) == 5
        load.gate.set()
        await repository.settled()
        assert answering(repository) == 3
        assert states(repository) == {5: END, 3: AVAILABLE}


@asynchronous
async def test_policies_choose_the_versions(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        write(tmp_path / f"m/{number}")
    async with serving(tmp_path, FakeLoad()) as repository:
        for text, expected in (
            ('{"versions": {"latest": 2}}', [4, 3]),
            ('{"versions": "all"}', [4, 3, 2, 1]),
            ('{"versions": [1, 3, 9]}', [3, 1]),
            ('{"versions": [9]}', [3, 1]),  # none of them is there: nothing is given up
            ('{"versions": "latest"}', [4]),
        ):
            tell(tmp_path / "m", text)
            await repository.settled()
            available = [number for number, state in states(repository).items() if state == AVAILABLE]
            assert available == expected
            assert answering(repository) == expected[0]
            assert [answering(repository, version=number) for number in expected] == expected


@asynchronous
async def test_a_policy_that_chooses_nothing_from_the_start_is_told(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    tell(tmp_path / "m", '{"versions": [9]}')
    async with serving(tmp_path, FakeLoad()) as repository:
        assert not repository.ready()
        assert repository.names() == ["m"]
        assert states(repository) == {1: END}
        assert why(repository, 1) == ("OK", "serving.json asks for version 9, which is not there.")


@asynchronous
async def test_no_version_is_given_up_before_all_others_are_there(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    write(tmp_path / "m/2")
    tell(tmp_path / "m", '{"versions": {"latest": 2}}')
    async with serving(tmp_path, load) as repository:
        write(tmp_path / "m/3", "broken")
        await repository.settled()
        assert states(repository) == {3: END, 2: AVAILABLE, 1: AVAILABLE}
        assert load.calls == [2, 1, 3]


@asynchronous
async def test_a_broken_serving_json_keeps_the_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "m/1")
    write(tmp_path / "m/2")
    tell(tmp_path / "m", '{"versions": [1]}')
    async with serving(tmp_path, FakeLoad()) as repository:
        tell(tmp_path / "m", '{"versions": [2')
        await repository.settled()
        await asyncio.sleep(5 * POLL)
        assert answering(repository) == 1
        code, message = why(repository, 1)
        assert code == "OK"
        assert message.startswith("serving.json is not used: it is not JSON: ")
        assert len([record for record in caplog.records if "serving.json is not used" in record.message]) == 1
        tell(tmp_path / "m", '{"versions": [2]}')
        await repository.settled()
        assert answering(repository) == 2
        assert why(repository, 2) == ("OK", "")


@asynchronous
async def test_labels_name_loaded_versions_and_move_when_the_new_one_is_loaded(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    write(tmp_path / "m/2")
    tell(tmp_path / "m", '{"versions": [1], "labels": {"stable": 1, "next": 2}}')
    async with serving(tmp_path, load) as repository:
        assert answering(repository, label="stable") == 1
        assert [status.version for status in repository.status("m", label="stable")] == [1]
        unknown = (Code.INVALID_ARGUMENT, "Unrecognized servable version label: next")
        assert refusal(lambda: answering(repository, label="next")) == unknown
        assert refusal(lambda: repository.status("m", label="next")) == unknown
        assert "Label 'next' names version 2, which is not served." in why(repository, 1)[1]
        load.gate.clear()
        tell(tmp_path / "m", '{"versions": [2], "labels": {"stable": 2}}')
        await until(lambda: states(repository).get(2) == LOADING)
        assert answering(repository, label="stable") == 1
        load.gate.set()
        await repository.settled()
        assert answering(repository, label="stable") == 2


# On request


@asynchronous
async def test_a_model_is_unloaded_and_loaded_on_request(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    write(tmp_path / "other/1")
    async with serving(tmp_path, load) as repository:
        with repository.use("m"):
            unloading = asyncio.create_task(repository.unload("m"))
            await until(lambda: states(repository) == {1: UNLOADING})
            assert refusal(lambda: answering(repository))[0] is Code.NOT_FOUND
            assert not unloading.done()
        await unloading
        write(tmp_path / "m/2")
        await repository.settled()
        await asyncio.sleep(5 * POLL)
        assert states(repository) == {1: END}
        assert repository.names() == ["m", "other"]
        assert repository.ready()
        await repository.load("m")
        assert answering(repository) == 2


@asynchronous
async def test_a_load_that_was_unloaded_meanwhile_is_not_served(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        load.gate.clear()
        load.entered.clear()
        write(tmp_path / "m/2")
        await until(load.entered.is_set)
        await repository.unload("m")
        load.gate.set()
        await repository.settled()
        assert states(repository) == {2: END, 1: END}
        assert load.loaded[2].runner.closed


@asynchronous
async def test_load_says_what_it_cannot_do(tmp_path: Path) -> None:
    write(tmp_path / "m/1")
    write(tmp_path / "m/2", "broken")
    async with serving(tmp_path, FakeLoad()) as repository:
        with pytest.raises(Refusal, match=r"Latest\(nobody\)") as refused:
            await repository.load("nobody")
        assert refused.value.code is Code.NOT_FOUND
        with pytest.raises(Refusal, match=r"The canary of m/2 answers NaN") as refused:
            await repository.load("m")
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert answering(repository) == 1
        with pytest.raises(Refusal, match=r"Latest\(nobody\)"):
            await repository.unload("nobody")
    with pytest.raises(Refusal) as refused:
        await repository.load("m")
    assert refused.value.code is Code.UNAVAILABLE


# The end


@asynchronous
async def test_fault_25_the_end_comes_while_a_version_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_module, "LAST_LOAD", 0.05)
    load = FakeLoad()
    write(tmp_path / "m/1")
    repository = Repository(Settings(tmp_path, poll_seconds=POLL), load)
    load.gate.clear()
    starting = asyncio.create_task(repository.start())
    await until(load.entered.is_set)
    assert not repository.ready()
    begun = time.monotonic()
    await repository.stop()
    assert time.monotonic() - begun < 10
    await starting
    left = [thread for thread in threading.enumerate() if thread.name == "load m"]
    assert len(left) == 1
    assert left[0].daemon  # does not keep the process from ending
    load.gate.set()


@asynchronous
async def test_fault_25_a_load_that_is_nearly_done_may_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository_module, "LAST_LOAD", PATIENCE)
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        load.gate.clear()
        load.entered.clear()
        write(tmp_path / "m/2")
        await until(load.entered.is_set)
        asyncio.get_running_loop().call_later(0.1, load.gate.set)
        await repository.stop()
        assert 2 in load.loaded


@asynchronous
async def test_fault_25_the_end_waits_for_requests_in_flight(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load) as repository:
        with repository.use("m"):
            stopping = asyncio.create_task(repository.stop())
            await asyncio.sleep(5 * POLL)
            assert not stopping.done()
            assert not load.loaded[1].runner.closed
            assert refusal(lambda: answering(repository))[0] is Code.UNAVAILABLE
        await stopping
        assert load.loaded[1].runner.closed


@asynchronous
async def test_fault_25_the_end_waits_no_longer_than_its_time(tmp_path: Path) -> None:
    load = FakeLoad()
    write(tmp_path / "m/1")
    async with serving(tmp_path, load, drain_seconds=0.05) as repository:
        with repository.use("m"):
            async with asyncio.timeout(PATIENCE):
                await repository.stop()
        assert not load.loaded[1].runner.closed


# Real SavedModels


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels 0, 1 and 2, whose y at x = 0 is their number, and which are not to be changed."""
    folder = tmp_path_factory.mktemp("halves")
    for number in range(3):
        half_plus_two(folder / str(number), two=number)
    return folder


def put(source: Path, folder: Path, number: int) -> None:
    """Publish a version as `export` does: written beside it, then renamed."""
    shutil.copytree(source, folder / f".unfinished-{number}")
    (folder / f".unfinished-{number}").rename(folder / str(number))


@asynccontextmanager
async def really_serving(folder: Path) -> AsyncIterator[Repository]:
    settings = Settings(folder, poll_seconds=POLL, max_batch=2, runner="tensorflow")
    workers, decoders = Workers(1), ThreadPoolExecutor(1)
    load = functools.partial(
        load_servable, settings=settings, workers=workers, decoders=decoders, observe=lambda *_: None
    )
    repository = Repository(settings, load)
    await repository.start()
    try:
        yield repository
    finally:
        await repository.stop()
        workers.close()
        decoders.shutdown()


async def ask(repository: Repository) -> float:
    """What the model `m` answers to x = 0."""
    with repository.use("m") as servable:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        outputs = await servable.predict(None, {"x": np.zeros(1, "float32")}, deadline)
    return float(next(iter(outputs.values()))[0])


def flip(path: Path, at: int, bit: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def data_of(folder: Path) -> Path:
    return folder / "variables/variables.data-00000-of-00001"


CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "no saved_model.pb": lambda folder: (folder / "saved_model.pb").unlink(),
    "truncated saved_model.pb": lambda folder: cut(folder / "saved_model.pb"),
    "empty saved_model.pb": lambda folder: os.truncate(folder / "saved_model.pb", 0),
    "bit-flipped saved_model.pb": lambda folder: flip(folder / "saved_model.pb", 0, 4),
    "no variables": lambda folder: shutil.rmtree(folder / "variables"),
    "no index": lambda folder: (folder / "variables/variables.index").unlink(),
    "truncated data": lambda folder: cut(data_of(folder)),
    "bit-flipped data": lambda folder: flip(data_of(folder), 40, 16),
    "empty folder": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
@asynchronous
async def test_fault_22_a_corrupt_version_is_refused_until_it_is_whole(tmp_path: Path, halves: Path, kind: str) -> None:
    put(halves / "1", tmp_path / "models/m", 1)
    shutil.copytree(halves / "2", tmp_path / "broken")
    CORRUPTIONS[kind](tmp_path / "broken")
    async with really_serving(tmp_path / "models") as repository:
        (tmp_path / "broken").rename(tmp_path / "models/m/2")
        await repository.settled()
        assert await ask(repository) == 1.0
        assert states(repository) == {2: END, 1: AVAILABLE}
        code, message = why(repository, 2)
        assert code != "OK"
        assert message
        assert str(tmp_path) not in message
        shutil.rmtree(tmp_path / "models/m/2")
        put(halves / "2", tmp_path / "models/m", 2)
        await repository.settled()
        assert await ask(repository) == 2.0
        assert states(repository) == {2: AVAILABLE, 1: END}


@asynchronous
async def test_fault_21_twenty_swaps_under_load_lose_no_request_and_never_go_back(tmp_path: Path, halves: Path) -> None:
    put(halves / "0", tmp_path / "m", 1)
    answers: list[list[float]] = [[] for _ in range(4)]
    async with really_serving(tmp_path) as repository:
        running = True

        async def client(mine: list[float]) -> None:
            while running:
                mine.append(await ask(repository))

        clients = [asyncio.create_task(client(mine)) for mine in answers]
        for number in range(2, 22):
            put(halves / str((number - 1) % 3), tmp_path / "m", number)
            await repository.settled()
            before = [len(mine) for mine in answers]
            await until(lambda: all(len(mine) > old for mine, old in zip(answers, before, strict=True)))  # noqa: B023
        running = False
        await asyncio.gather(*clients)  # raises if one request failed
    for mine in answers:
        changes = [new for old, new in zip([0.0, *mine], mine, strict=False) if new != old]
        assert changes == [float(number % 3) for number in range(1, 21)]


@asynchronous
async def test_fault_26_fifty_reloads_leave_nothing_behind(tmp_path: Path, halves: Path) -> None:
    process = psutil.Process()
    put(halves / "0", tmp_path / "m", 0)

    async def reload(number: int) -> None:
        put(halves / str(number % 3), tmp_path / "m", number)
        await repository.settled()
        assert await ask(repository) == number % 3
        shutil.rmtree(tmp_path / f"m/{number - 1}")

    async with really_serving(tmp_path) as repository:
        for number in range(1, 6):
            await reload(number)
        gc.collect()
        threads, files, memory = process.num_threads(), process.num_fds(), process.memory_info().rss
        for number in range(6, 51):
            await reload(number)
        gc.collect()
        assert process.num_threads() <= threads + 1
        assert process.num_fds() <= files + 1
        assert process.memory_info().rss - memory < 60e6
        assert len(repository.status("m")) <= 12
