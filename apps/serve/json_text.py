"""JSON from strangers to plain values and back: quick where it can be, strict where JSON alone is not."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from apps.serve.errors import invalid

INT64, UINT64 = -(1 << 63), (1 << 64) - 1


def parse_json(body: bytes) -> Any:
    """The value of a JSON document; `NaN`, `Infinity` and `-Infinity` are let in, as TensorFlow Serving does.

    Whole numbers that do not fit 64 bits become floats. It blocks: large documents belong into a thread.

    >>> parse_json(b'{"x": [1, NaN]}')
    {'x': [1, nan]}

    Raises:
        Refusal: INVALID_ARGUMENT for what is no UTF-8 or no JSON, for something behind the document, nesting deeper
            than about a thousand, a number over 1.8e308, a name given twice, and half of a surrogate pair.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_strictly(body)
    # orjson keeps the last of several equal names. There are none where every colon belongs to a name that is kept.
    return value if _names(value, body.count(b":")) else _parse_strictly(body)


def dump_json(value: Any) -> bytes:
    """A JSON document of plain values and NumPy arrays; numbers that are not finite become the tokens it accepts.

    Floats are written in the fewest digits that give the same float of their own width. Bytes must be UTF-8.

    >>> dump_json({"y": np.array([[0.1, 2]], np.float32)})
    b'{"y":[[0.1,2.0]]}'
    >>> dump_json([np.array([np.nan, 0.1], np.float32), -math.inf])
    b'[[NaN,0.1],-Infinity]'
    """
    if _finite(value):
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":")).encode()


def _parse_strictly(body: bytes) -> Any:
    try:
        text = body.decode()
        if not text.strip():
            raise invalid("JSON Parse error: The document is empty")
        value = json.loads(text, parse_float=_float, parse_int=_whole, object_pairs_hook=_unique)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair has no UTF-8
        return value
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: The document is not UTF-8 at offset: {error.start}") from None
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: A string has half of a surrogate pair.") from None
    except RecursionError:
        raise invalid("JSON Parse error: Lists or objects are nested too deeply.") from None


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise invalid(f"JSON Parse error: The number {text[:20]} does not fit a float of 64 bits.")
    return value


def _whole(text: str) -> int | float:
    if len(text) > 20:
        return _float(text)
    value = int(text)
    return value if INT64 <= value <= UINT64 else float(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = names.most_common(1)[0][0]
        raise invalid(f"JSON Parse error: The name {twice[:60]!r} is given twice in one object.")
    return value


def _names(value: Any, count: int) -> bool:
    """Whether objects have at least that many names in all; looks no further once it is so."""
    waiting = [value]
    while count > 0 and waiting:
        value = waiting.pop()
        if type(value) is dict:
            count -= len(value)
            waiting.extend(value.values())
        elif type(value) is list and type(value[0] if value else None) in (dict, list):
            waiting.extend(value)
    return count <= 0


def _finite(value: Any) -> bool:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            if set(map(type, value)) <= {float, int}:
                if not _finite_sum(value):
                    return False
            else:
                waiting.extend(value)
        elif isinstance(value, np.ndarray | np.generic):
            if value.dtype.kind in "fV" and not np.isfinite(value).all():
                return False
        elif isinstance(value, float) and not math.isfinite(value):
            return False
    return True


def _finite_sum(values: Iterable[float]) -> bool:
    # False as well where finite numbers add up to more than a float can be: that only costs the slower way.
    try:
        return math.isfinite(sum(values))
    except OverflowError:
        return False


def _plain(value: Any) -> Any:
    """What neither of the two writes itself."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} is no JSON")
    if value.dtype.kind in "fV" and value.dtype.itemsize < 4:  # float16, and bfloat16, which is of kind "V"
        value = value.astype(np.float32)
    if value.dtype == np.float32:  # the shortest text of a float32, read as a float64, is written as the same text
        return value.astype(str).astype(np.float64).tolist()
    return value.tolist()
