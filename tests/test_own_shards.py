"""Shards divided among processes: each reads its own part of the disk, all together every picture once an epoch."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import augment, make_train
from pipelines.encoded import UNCHECKED, Encoded
from pipelines.share import Share
from pipelines.stream import Streamed

COUNT, OF, BATCH = 43, 3, 6  # 7 steps an epoch
SHARES = [Share(number, OF) for number in range(OF)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Encoded:
    """Pictures in five files, listed in an order that is not that of the disk."""
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    stretches = []
    for number, places in enumerate(np.array_split(np.arange(COUNT), 5)):
        with (folder / f"{number}.tfrecord").open("wb") as file:
            for _ in places:
                start = file.tell()
                Image.fromarray(generator.integers(0, 256, (8, 8, 3)).astype("uint8")).save(file, "png")
                stretches.append((os.fsencode(file.name), start, file.tell() - start))
    paths, starts, lengths = zip(*(stretches[place] for place in generator.permutation(COUNT)), strict=True)
    return Encoded(np.array(paths, object), np.array(starts), np.array(lengths), np.full(COUNT, UNCHECKED))


def batches(shards: Encoded, share: Share, **options) -> tf.data.Dataset:
    """Those of a share of the shards, whose label is the picture's place."""
    options = {"own_shards": True, "batch_size": BATCH, "share": share, **options}
    return make_train(Streamed(shards, (8, 8)), {"place": np.arange(COUNT)}, {"place": COUNT}, **options)


def epochs(shards: Encoded, share: Share, count: int, **options) -> list[dict[int, np.ndarray]]:
    """{picture: pixels} of each epoch, in order."""
    data = batches(shards, share, **{"augmentation": [augment.random_crop(3)], "seed": 5, **options})
    found = [{} for _ in range(count)]
    for step, (x, y, _) in enumerate(data.take(count * (COUNT // BATCH))):
        assert len(x) == BATCH // share.of
        places = y["place"].numpy().argmax(axis=1).tolist()
        assert not set(places) & set(found[step // 7])
        found[step // 7] |= dict(zip(places, x.numpy(), strict=True))
    return found


def test_a_share_reads_only_its_own_shards_in_every_epoch(shards, monkeypatch) -> None:
    read: Counter[bytes] = Counter()
    original = Encoded.read

    def counted(self: Encoded, place: int) -> bytes:
        read[Path(os.fsdecode(self.paths[place])).stem] += 1
        return original(self, place)

    monkeypatch.setattr(Encoded, "read", counted)
    touched = []
    for share in SHARES:
        read.clear()
        epochs(shards, share, 4)
        touched.append(set(read))
    assert touched == [{"0", "1"}, {"1", "2", "3"}, {"3", "4"}]  # 9, 9, 9, 8 and 8 pictures, cut at 15 and 29


def test_every_picture_comes_at_most_once_an_epoch_and_all_but_the_remainder(shards) -> None:
    by_share = [epochs(shards, share, 3) for share in SHARES]
    for epoch in range(3):
        shown = [place for found in by_share for place in found[epoch]]
        assert len(shown) == len(set(shown)) == 42
    assert list(by_share[0][0]) != list(by_share[0][1])
    assert set().union(*(set(found[0]) | set(found[1]) | set(found[2]) for found in by_share)) == set(range(COUNT))


def test_what_happens_to_a_picture_does_not_depend_on_its_share(shards) -> None:
    (everything,) = epochs(shards, Share(0, 1), 1, own_shards=False)
    for share in SHARES:
        (found,) = epochs(shards, share, 1)
        for place in set(found) & set(everything):
            np.testing.assert_array_equal(found[place], everything[place])
        assert len(set(found) & set(everything)) >= 13


def test_own_shards_go_on_where_a_training_stopped(shards) -> None:
    options = {"augmentation": [augment.random_crop(3), augment.mixup()]}
    whole = list(batches(shards, SHARES[2], **options).take(16))
    again = batches(shards, SHARES[2], first_epoch=1, first_step=3, **options).take(6)
    for found, expected in zip(again, whole[10:], strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


def test_own_shards_draw_some_pictures_only(shards) -> None:
    only = np.arange(0, COUNT, 2)  # 22: 3 steps an epoch
    shown = Counter()
    for share in SHARES:
        data = batches(shards, share, only=only).take(3)
        shown.update(place for _, y, _ in data for place in y["place"].numpy().argmax(axis=1).tolist())
    assert set(shown.values()) == {1}
    assert set(shown) < set(only.tolist())
    assert len(shown) == 18


def test_own_shards_need_a_stream_and_no_sampling(shards) -> None:
    labels = {"place": np.arange(COUNT)}
    with pytest.raises(ValueError, match="`own_shards` is for pictures that are streamed"):
        make_train(np.zeros((COUNT, 4, 4, 3), "uint8"), labels, {"place": COUNT}, batch_size=6, own_shards=True)
    with pytest.raises(ValueError, match="Use balance='weights'"):
        epochs(shards, SHARES[0], 1, balance="sampling")
    with pytest.raises(ValueError, match="mix pictures of one batch"):
        epochs(shards, Share(0, 6), 1, augmentation=[augment.mixup()])
