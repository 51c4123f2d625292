"""Alarms are told once, in their case alone: with real trainings, and with figures made by hand."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from apps import training
from apps.console import Console
from apps.data import Data
from apps.resolve import resolve
from callbacks import Alarms, Checkpoint

CLASSES = {"label": ["a", "b", "c"], "kids": ["no", "yes"]}


def examples(count: int = 60, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Three features that tell the label; nothing tells `kids`, of which three quarters are "no"."""
    label, kids = np.arange(count) % 3, (np.arange(count) % 4 == 3).astype(int)
    x = np.random.default_rng(seed).normal(0, 0.1, (count, 3)) + np.eye(3)[label]
    return x.astype("float32"), {"label": label, "kids": kids}


def network(deaf: bool = True, rate: float = 1.0) -> keras.Model:
    """Two heads; that of `kids` sees nothing of the input if `deaf`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    label = layers.Dense(3, name="head_label")(inputs)
    kids = layers.Dense(2, name="head_kids")(layers.Rescaling(0.0 if deaf else 1.0)(inputs))
    model = keras.Model(inputs, {"label": label, "kids": kids})
    losses = {head: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for head in CLASSES}
    model.compile(keras.optimizers.SGD(rate), losses, metrics={head: ["accuracy"] for head in CLASSES})
    return model


def by_hand(alarms: Alarms, rows: Iterable[Mapping[str, float]], epochs: int = 0, first: int = 0) -> list[str]:
    """What the callback tells of these logs; its model answers class 0, and class 1 for odd examples."""
    rows = list(rows)
    answer = SimpleNamespace(predict_on_batch=lambda x: np.eye(2)[np.arange(len(x)) % 2])
    alarms.set_model(answer)
    alarms.set_params({"epochs": epochs or len(rows)})
    alarms.on_train_begin()
    for epoch, row in enumerate(rows, start=first):
        alarms.on_epoch_begin(epoch)
        alarms.on_epoch_end(epoch, dict(row))
    return alarms.messages


def one_head(validation: Iterable[float], trained: Iterable[float] | None = None) -> list[dict[str, float]]:
    validation = list(validation)
    pairs = zip(trained or validation, validation, strict=True)
    return [{"accuracy": below, "val_accuracy": value} for below, value in pairs]


def held_out(ones: int = 30, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, 1)), (np.arange(count) < ones).astype(int)


def test_output_that_answers_one_class_is_told_once_also_after_a_resume(tmp_path) -> None:
    x, y = examples()
    told: list[str] = []

    def fit(first: int, last: int) -> None:
        model = network()
        alarms = Alarms((x, y), classes=CLASSES, names={"kids": "the kids"}, start_epoch=1, say=told.append)
        checkpoint = Checkpoint(tmp_path / "last.npz", {"alarms": alarms})
        assert checkpoint.restore(model)[0] == first
        options = {"batch_size": 20, "verbose": 0, "validation_data": (x, y), "initial_epoch": first, "epochs": last}
        model.fit(x, y, callbacks=[alarms, checkpoint], **options)
        assert model.evaluate(x, y, verbose=0, return_dict=True)["label_accuracy"] == 1.0
        assert alarms.messages == told

    fit(0, 3)
    assert told == []  # the second and the third epoch count, and three in a row are needed
    fit(3, 6)
    (message,) = told
    assert message.startswith(
        "the kids has learned nothing yet: in epoch 4, as in the 2 before, the accuracy is that of one class, and "
        "every held-out example gets class 'no', the largest (75.0 % of the held-out examples). Train for longer"
    )
    fit(6, 9)
    assert told == [message]


def test_alarms_leave_the_training_as_it_is() -> None:
    x, y = examples()
    weights = []
    for callbacks in ([], [Alarms((x, y), (x, y), CLASSES, patience=1, say=str)]):
        model = network()
        model.fit(x, y, epochs=3, verbose=0, validation_data=(x, y), callbacks=callbacks)
        weights.append(model.get_weights())
    for found, expected in zip(*weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_accuracy_that_equals_the_largest_share_by_accident_is_no_alarm() -> None:
    """70 of 100 are right, as if class 0 were answered always; the network answers both classes."""
    rows = one_head([0.5, 0.7, 0.7, 0.7, 0.7, 0.8, 0.82, 0.85, 0.86, 0.87])
    assert by_hand(Alarms(held_out()), rows) == []
    assert by_hand(Alarms(held_out()), one_head([0.6, 0.7, 0.8, 0.9, 0.7, 0.7])) == []  # for two epochs only


def test_no_better_than_the_largest_class_is_told_in_the_second_half() -> None:
    rows = one_head([0.5, 0.6, 0.6, 0.65, 0.66, 0.67, 0.68, 0.70, 0.72, 0.75])
    with pytest.warns(UserWarning, match="no better"):
        (message,) = by_hand(Alarms(held_out()), rows)
    assert message.startswith(
        "the network is no better than always answering class 0 (70.0 % of the held-out examples): validation accuracy "
        "70.0 % in epoch 8, and no more than that share in the 2 before."
    )
    assert by_hand(Alarms(held_out(), balanced=True), rows) == []
    assert by_hand(Alarms(held_out(), start_epoch=7), rows) == []


def test_a_class_that_is_answered_always_need_not_be_the_largest() -> None:
    x, y = examples()
    model = network(rate=0.0)
    model.get_layer("head_kids").bias.assign([0.0, 5.0])
    told: list[str] = []
    alarms = Alarms(
        [(x[:30], {**y, "kids": y["kids"][:30]}), (x[30:], {**y, "kids": y["kids"][30:]})],
        None,
        {"kids": ["no", "yes"]},
        say=told.append,
    )
    model.fit(x, y, epochs=4, verbose=0, validation_data=(x, y), callbacks=[alarms])
    (message,) = told
    assert "every held-out example gets class 'yes'; the largest is 'no'. Train for longer" in message


def test_held_out_examples_of_one_class_tell_nothing() -> None:
    assert by_hand(Alarms(held_out(ones=0)), one_head([1.0] * 8)) == []


# Gender in a public solution whose split was drawn anew at every resume: 0.741, then 0.885.
BEFORE = [0.60, 0.64, 0.68, 0.69, 0.71, 0.70, 0.73, 0.741]


def resumed(rows: list[dict[str, float]], before: list[float] = BEFORE, **options: object) -> list[str]:
    first = Alarms(held_out(500, 1000), **options)
    assert by_hand(first, one_head(before), epochs=40) == []
    second = Alarms(held_out(500, 1000), say=str, **options)
    second.set_state(first.get_state())
    return by_hand(second, rows, epochs=40, first=len(before))


def test_validation_that_jumps_after_a_resume_is_told_once() -> None:
    (message,) = resumed(one_head([0.885, 0.9, 0.91], [0.75, 0.76, 0.77]))
    assert (
        "the network: validation accuracy jumps from 74.1 % to 88.5 % in epoch 9, the first after the resume" in message
    )
    # The changes are 4, 4, 1, 2, -1, 3 and 1.1 points: the middle is 2, the median distance from it 1 (of 0, 0.9, 1,
    # 1, 2, 2, 3), so 2 + 4 * 1.4826 * 1 = 7.9; by chance four times the root of 2 * 0.741 * 0.259 / 1000, 7.8.
    assert "no more than 7.9 points were to be expected" in message


def test_a_second_jump_after_a_second_resume_is_not_told_again() -> None:
    told: list[str] = []
    alarms = Alarms(held_out(500, 1000), say=told.append)
    by_hand(alarms, one_head(BEFORE), epochs=40)
    for first, row in ((8, one_head([0.885, 0.75], [0.75, 0.75])), (10, one_head([0.99], [0.76]))):
        state, alarms = alarms.get_state(), Alarms(held_out(500, 1000), say=told.append)
        alarms.set_state(state)
        by_hand(alarms, row, epochs=40, first=first)
    assert len(told) == 1
    assert told == alarms.messages


@pytest.mark.parametrize(
    ("after", "trained", "options"),
    [
        (0.80, 0.75, {}),  # not more than epochs differ
        (0.885, 0.89, {}),  # training jumps too: the rate fell, say
        (0.885, 0.75, {"changes": [8]}),
        (0.60, 0.60, {}),
    ],
    ids=["usual", "training_too", "another_phase", "fall"],
)
def test_what_an_epoch_can_do_is_no_jump(after, trained, options) -> None:
    assert resumed(one_head([after, 0.9], [trained, 0.9]), **options) == []


def test_jump_without_a_resume_or_with_too_little_before_it_is_no_alarm() -> None:
    assert by_hand(Alarms(held_out(500, 1000)), one_head([*BEFORE, 0.885])) == []
    assert resumed(one_head([0.885], [0.6]), before=BEFORE[-4:]) == []


def test_validation_above_the_training_examples_themselves_is_told_once() -> None:
    """A fifth of the training labels is wrong, none of the validation."""
    x, y = examples(600)
    wrong = {**y, "label": np.where(np.arange(600) % 5 == 0, (y["label"] + 1) % 3, y["label"])}
    told: list[str] = []
    alarms = Alarms((x, y), (x, wrong), CLASSES, balanced=True, say=told.append)
    network(deaf=False, rate=0.1).fit(x, wrong, epochs=8, verbose=0, validation_data=(x, y), callbacks=[alarms])
    above = [text for text in told if "without augmentation" in text]
    (message,) = above
    assert message.startswith("label: validation accuracy 100.0 % in epoch 4 is above the 80.0 % on 600 training")


def test_what_augmentation_takes_from_training_accuracy_is_no_alarm() -> None:
    """`fit` shows 40 %, as with mixtures; of the training examples as they are, as many are right as of the others."""
    training = np.zeros((100, 1)), np.arange(100) % 2
    looked: list[int] = []

    class Counted:
        def __iter__(self):
            looked.append(1)
            return iter([training])

    alarms = Alarms(held_out(50), Counted())
    assert by_hand(alarms, one_head(np.linspace(0.5, 0.99, 40), [0.4] * 40)) == []
    assert len(looked) == 4
    assert alarms.looked == [19, 24, 29, 34]


@pytest.mark.parametrize("seed", range(20))
def test_healthy_trainings_raise_no_alarm(seed) -> None:
    """Twenty times five trainings, resumed in some epoch: accuracies rise, each by chance of its own pictures.

    At the largest share for one epoch on the way, above the augmented training, and with a peak rate in between.
    """
    generator = np.random.default_rng(seed)
    for _ in range(5):
        epochs, count = int(generator.integers(8, 60)), int(generator.integers(200, 3000))
        largest = generator.uniform(0.51, 0.8)
        end = largest + (1 - largest) * generator.uniform(0.3, 0.9)
        true = largest - 0.1 + (end - largest + 0.1) * (1 - np.exp(-4 * np.arange(epochs) / epochs))
        true[epochs // 3] = largest
        validation = generator.binomial(count, np.clip(true + generator.normal(0, 0.01, epochs), 0, 1)) / count
        trained = np.clip(true - generator.uniform(0, 0.3), 0, 1)
        x, y = held_out(count - round(largest * count), count)
        both = [(x, y), (x, np.arange(count) % 2)]
        rows, stop = one_head(validation, list(trained)), int(generator.integers(1, epochs))
        first = Alarms(both[0], both[1], start_epoch=epochs // 4)
        assert by_hand(first, rows[:stop], epochs=epochs) == []
        second = Alarms(both[0], both[1], start_epoch=epochs // 4)
        second.set_state(first.get_state())
        assert by_hand(second, rows[stop:], epochs=epochs, first=stop) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": iter([])}, "`held_out` must be .* gone through again"),
        ({"patience": 0}, "`patience` must be 1, 2, ... epochs"),
        ({"start_epoch": -1}, "`start_epoch` must be at least 0"),
        ({"advice": {"leak": "?"}}, "`advice` may be for majority, resume, above. Received: leak"),
    ],
)
def test_impossible_arguments_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Alarms(**{"held_out": held_out(), **options})


def test_logs_without_the_accuracy_say_what_they_have() -> None:
    with pytest.raises(ValueError, match=r"no accuracy\. They have: loss, val_loss\. Compile with metrics"):
        by_hand(Alarms(held_out()), [{"loss": 1.0, "val_loss": 1.0}])
    assert by_hand(Alarms(held_out()), [{"loss": 1.0}]) == []  # an epoch without validation


def test_training_tells_in_the_users_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All pictures are alike, so that one class is answered for all of them."""
    labels = (np.arange(48) % 4 == 0).astype("int32")
    data = Data(np.full((48, 32, 32, 3), 99, "uint8"), {"hair colour": labels}, {"hair colour": ["dark", "fair"]})
    chosen = {"model": "lenet5", "epochs": 4, "batch_size": 8, "precision": "float32", "warmup": 0.0, "flip": False}
    recipe = resolve({**chosen, "image_size": (32, 32), "crop": 0}, 40, (32, 32), list(data.classes.values()))
    index = np.arange(48)
    trained = training.train(recipe, data, index[:40], index[40:], tmp_path, Console(quiet=True), "fold 1 of 2")
    (message,) = trained.alarms
    assert "hair colour has learned nothing yet: in epoch 3, as in the 2 before" in message
    assert "class 'dark', the largest (75.0 % of the held-out examples)" in message
    assert "`--balance weights`" in message
    assert "head_weights" not in message  # there is one head only
    assert capsys.readouterr().err == f"warning: fold 1 of 2: {message}\n"
    again = training.train(recipe, data, index[:40], index[40:], tmp_path, Console(quiet=True), resume=True)
    assert again.alarms == [message]
    assert capsys.readouterr().err == ""
