"""Whether what a client sends fits a signature, seen before its data are read."""

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np

from apps.serve.errors import invalid
from apps.serve.signature import Signature, TensorSpec

# That a tensor without any would have if its sides of zero were one: batches without rows are computed with a row.
MOST_ABSENT = 1 << 22


def check_names(signature: Signature, names: Collection[str]) -> None:
    """Refuse other inputs than the signature's.

    Raises:
        Refusal: INVALID_ARGUMENT, with the names that are missing and those that are not known.
    """
    missing = sorted(signature.inputs.keys() - set(names))
    unknown = sorted(set(names) - signature.inputs.keys())
    if missing or unknown:
        raise invalid(
            f"Signature '{signature.name}' takes the inputs {sorted(signature.inputs)}. "
            f"Missing: {missing}, not known: {[name[:60] for name in unknown[:5]]}."
        )


def check_tensor(spec: TensorSpec, dtype: np.dtype, shape: tuple[int, ...], spell: Callable[[np.dtype], str]) -> None:
    """Refuse a tensor by its dtype and shape.

    Encoded pictures, [N] or [N, 1], fit where pixels are expected. A tensor without elements needs no bytes, so that
    its other sides could be anything.

    Args:
        spec: The input.
        dtype: What the client says it sends.
        shape: Sides of zero or more.
        spell: The protocol's name of a dtype, for the message.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    if 0 in shape and math.prod(side or 1 for side in shape) > MOST_ABSENT:
        raise invalid(f"Input '{spec.name}' has no elements, but sides that are too large: {list(shape[:8])}.")
    if spec.is_pictures and dtype.kind == "O":
        if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
            return
    elif dtype == spec.dtype and (spec.shape is None or _fits(spec.shape, shape)):
        return
    sides = "any rank" if spec.shape is None else f"shape {[-1 if side is None else side for side in spec.shape]}"
    instead = f", or encoded pictures as {spell(np.dtype(object))} of shape [-1]" if spec.is_pictures else ""
    raise invalid(
        f"Input '{spec.name}' must be {spell(spec.dtype)} of {sides}{instead}. "
        f"Received: {spell(dtype)} of shape {list(shape[:8])}."
    )


def check_rows(signature: Signature, inputs: Mapping[str, np.ndarray]) -> None:
    """Refuse inputs of different numbers of rows, where rows can be joined with those of other requests.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    rows = {name: len(array) for name, array in inputs.items()} if signature.batched else {}
    if len(set(rows.values())) > 1:
        raise invalid(f"All inputs must have the same number of rows. Received: {rows}.")


def _fits(expected: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        side is None or side == given for side, given in zip(expected, shape, strict=True)
    )
