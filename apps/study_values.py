"""Values of a recipe's fields as Optuna keeps them: what is no number of a range is JSON."""

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from apps.ranges import Range, Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """A space in Optuna's words."""
    found: dict[str, BaseDistribution] = {}
    for name, one in space.items():
        if not isinstance(one, Range):
            found[name] = CategoricalDistribution([_text(value) for value in one.values])
        elif one.whole:
            found[name] = IntDistribution(int(one.low), int(one.high), log=one.log)
        else:
            found[name] = FloatDistribution(one.low, one.high, log=one.log)
    return found


def encoded(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Values as Optuna keeps them."""
    return {name: values[name] if isinstance(one, Range) else _text(values[name]) for name, one in space.items()}


def decoded(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The values that Optuna kept; those that it has."""
    values = {}
    for name, one in space.items():
        if name in params:
            values[name] = params[name] if isinstance(one, Range) else _tuple(json.loads(params[name]))
    return values


def cell(value: Any) -> Any:
    """A value as a table has it."""
    return _text(value) if isinstance(value, tuple | dict) else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
