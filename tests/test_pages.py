"""What the pages show in Python runs as it stands there."""

import re
from pathlib import Path

import keras
import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def test_example_of_the_callbacks_page_trains_finds_a_rate_and_saves(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "callbacks/README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)])
    y = np.arange(600) % 3
    x = (np.random.default_rng(0).normal(size=(600, 4)) + y[:, None]).astype("float32")
    names = {"model": model, "x": x, "y": y, "x_val": x[:60], "y_val": y[:60]}
    exec(first, names)
    assert {path.name for path in tmp_path.iterdir()} == {"average.npz", "best.npz", "model.keras"}
    from callbacks import read_snapshot

    loaded = keras.models.load_model("model.keras")
    for kept, saved in zip(read_snapshot("best.npz")[0], loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, saved)
    assert names["stopping"].best == max(model.history.history["average_val_accuracy"])
    exec(second, names)
    assert names["found"].title in capsys.readouterr().out


def test_every_network_is_on_the_page_of_the_networks() -> None:
    import kerascnn

    page = (ROOT / "kerascnn/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_]+)`", page))
    named |= {f"{name}_bn" for name in named if name.startswith("vgg")}
    named |= (
        {f"efficientnet_b{number}" for number in range(8)}
        if "`efficientnet_b0` to `efficientnet_b7`" in page
        else set()
    )
    assert set(kerascnn.list_models()) <= named
    for name in kerascnn.list_models():
        for option in kerascnn.registry.lookup(name).own_options:
            assert f"`{option}`" in page, option
