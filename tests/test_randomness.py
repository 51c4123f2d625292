"""Random numbers against an implementation of the hash in numpy, and against the distributions they should have."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from pipelines.randomness import example_seeds, fork, normal, uniform


def pcg4d(x: np.ndarray, y: np.ndarray, z: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The paper's listing, on arrays of 32-bit words: [4, ...]."""
    v = np.array(np.broadcast_arrays(x, y, z, w)).astype("uint32")
    v = v * np.uint32(1664525) + np.uint32(1013904223)
    for last in (False, True):
        v[0] += v[1] * v[3]
        v[1] += v[2] * v[0]
        v[2] += v[0] * v[1]
        v[3] += v[1] * v[2]
        if not last:
            v ^= v >> np.uint32(16)
    return v


def words(values: list[int]) -> np.ndarray:
    return np.array([value % 2**32 for value in values], "uint32")


def seeds_for(count: int, seed: int = 0, epoch: int = 0, first: int = 0) -> tf.Tensor:
    return example_seeds(seed, tf.constant(epoch), tf.range(first, first + count))


def test_hash_gives_the_recorded_words() -> None:
    """Recorded from numpy in another process: no process and no version may give others."""
    seeds = example_seeds(7, tf.constant(3), tf.constant([0, 1, 5 + 2**40]))
    np.testing.assert_array_equal(
        seeds,
        [
            [2513551777, 265537922, 154439220],
            [2842412351, 2293797887, 856692368],
            [3378798815, 2060112220, 225524526],
        ],
    )
    np.testing.assert_array_equal(
        fork(seeds, 2),
        [
            [192721636, 2775716343, 663294164],
            [3049954214, 1397044028, 2593059909],
            [3424403152, 3265773787, 1798519274],
        ],
    )
    np.testing.assert_array_equal(
        uniform(seeds, 5).numpy() * 2**24,
        [
            [8244054, 5526475, 4432686, 3078649, 2329139],
            [15555163, 10793318, 5312552, 1338312, 3092175],
            [14865450, 15698127, 13781074, 15303999, 11201568],
        ],
    )


def test_seeds_are_the_hash_of_seed_epoch_and_both_halves_of_the_index() -> None:
    index = [0, 1, 2, 49_999, 2**31, 2**32 - 1, 2**32, 3 * 2**32 + 17, -1]
    high = words([value >> 32 for value in index])
    for seed, epoch in ((0, 0), (7, 3), (2**31 - 1, 2**31 - 1)):
        expected = pcg4d(words([seed]), words([epoch]), words(index), high)[:3].T
        np.testing.assert_array_equal(example_seeds(seed, tf.constant(epoch), tf.constant(index, "int64")), expected)


@pytest.mark.parametrize("count", [1, 3, 4, 10])
def test_uniform_is_the_high_bits_of_the_seeds_hashed_with_a_counter(count) -> None:
    seeds = seeds_for(50, seed=3)
    blocks = -(-count // 4)
    x, y, z = seeds.numpy().T[:, :, None]
    hashed = np.concatenate(pcg4d(x, y, z, words(list(range(blocks)))[None]), axis=1)[:, :count]
    np.testing.assert_array_equal(uniform(seeds, count), (hashed >> np.uint32(8)).astype("float64") / 2**24)


def test_fork_is_the_hash_with_the_purpose_counted_from_the_other_end() -> None:
    seeds = seeds_for(50)
    for purpose in (0, 1, 1000):
        expected = pcg4d(*seeds.numpy().T, words([-1 - purpose]))[:3].T
        np.testing.assert_array_equal(fork(seeds, purpose), expected)


def test_numbers_are_the_same_again_and_inside_a_dataset() -> None:
    def draw(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = fork(example_seeds(5, tf.constant(2, "int64"), index), 1)
        return uniform(seeds, 7), normal(seeds, 7)

    first, again = draw(tf.range(40)), draw(tf.range(40))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    batches = list(tf.data.Dataset.range(40).batch(7).map(draw, num_parallel_calls=2))
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), first[0])
    np.testing.assert_allclose(np.concatenate([batch[1] for batch in batches]), first[1], rtol=0, atol=1e-5)


def test_numbers_of_an_example_do_not_depend_on_its_batch() -> None:
    index = np.random.default_rng(0).permutation(30)
    whole, shuffled = uniform(seeds_for(30), 6).numpy(), uniform(example_seeds(0, tf.constant(0), index), 6).numpy()
    np.testing.assert_array_equal(shuffled, whole[index])
    np.testing.assert_array_equal(uniform(seeds_for(1, first=17), 6), whole[17:18])
    assert uniform(seeds_for(0), 6).shape == (0, 6)


def test_uniform_is_flat_over_examples_and_over_the_numbers_of_one() -> None:
    for numbers in (uniform(seeds_for(40_000), 6).numpy().T, uniform(seeds_for(6, seed=1), 40_000).numpy()):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert numbers.dtype == np.float32
        for column in numbers:
            counts = np.histogram(column, 100, (0, 1))[0]
            assert 0.0005 < stats.chisquare(counts).pvalue < 0.9995
            # The lowest bits are as random as the highest.
            low = (column * 2**24).astype(int) % 16
            assert stats.chisquare(np.bincount(low, minlength=16)).pvalue > 0.0005


@pytest.mark.parametrize("count", [1, 2, 5])
def test_normal_is_normally_distributed(count) -> None:
    numbers = normal(seeds_for(20_000), count).numpy()
    assert numbers.shape == (20_000, count)
    for column in numbers.T:
        assert stats.kstest(column, "norm").pvalue > 0.001
        assert column.std() == pytest.approx(1, abs=0.015)
    if count > 1:
        assert np.abs(np.corrcoef(numbers.T)[np.triu_indices(count, 1)]).max() < 0.03
        assert np.abs(np.corrcoef(numbers.T**2)[np.triu_indices(count, 1)]).max() < 0.03


NEIGHBOURS = {
    "index": lambda base: (base, seeds_for(20_000, first=1)),
    "far index": lambda base: (base, example_seeds(0, tf.constant(0), tf.range(20_000, dtype="int64") + 2**32)),
    "epoch": lambda base: (base, seeds_for(20_000, epoch=1)),
    "seed": lambda base: (base, seeds_for(20_000, seed=1)),
    "seed and epoch": lambda base: (seeds_for(20_000, seed=1), seeds_for(20_000, epoch=1)),
    "purpose": lambda base: (fork(base, 0), fork(base, 1)),
    "none and purpose": lambda base: (base, fork(base, 0)),
    "order of purposes": lambda base: (fork(fork(base, 0), 1), fork(fork(base, 1), 0)),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbouring_seeds_give_unrelated_numbers(name) -> None:
    first, second = (uniform(seeds, 3).numpy() for seeds in NEIGHBOURS[name](seeds_for(20_000)))
    together = np.concatenate([first, second], axis=1).T
    assert np.abs(np.corrcoef(together)[:3, 3:]).max() < 0.03
    for one in together[:3]:
        for other in together[3:]:
            table = np.histogram2d(one, other, 8, [[0, 1], [0, 1]])[0]
            assert stats.chisquare(table, axis=None).pvalue > 0.0005


def test_no_two_examples_of_several_epochs_share_their_seeds() -> None:
    seeds = np.concatenate([seeds_for(50_000, epoch=epoch).numpy() for epoch in range(4)])
    assert len(np.unique(seeds, axis=0)) == 200_000


def test_seeds_of_purposes_are_not_the_numbers_that_are_drawn() -> None:
    seeds = seeds_for(20)
    drawn = {int(number * 2**24) for number in uniform(seeds, 400).numpy().ravel()}
    forked = {int(word) >> 8 for purpose in range(20) for word in fork(seeds, purpose).numpy().ravel()}
    assert len(drawn & forked) < 20  # 1,200 words in 2**24 values, 8,000 of them taken: 0.6 by chance
