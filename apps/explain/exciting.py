"""The pictures that excite a unit most."""

import numpy as np


def most_exciting(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the pictures with the largest activation of a unit, the largest first.

    Args:
        values: The activation in every picture [N], such as a column of `target_values`.
        count: How many pictures are wanted.

    Source: Rich feature hierarchies, https://arxiv.org/abs/1311.2524, section 3.1

    >>> most_exciting(np.array([0.5, 2.0, 1.0]), 2)
    array([1, 2])
    """
    return np.argsort(-values, kind="stable")[:count]
