"""The registry of metrics by name."""

import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dnnlib import UserError

MetricFunction = Callable[..., dict[str, float]]


class Metric(NamedTuple):
    pattern: re.Pattern
    function: MetricFunction
    names: tuple[str, ...]


REGISTRY: list[Metric] = []


def register_metric(
    function: MetricFunction | None = None, *, pattern: str | None = None, names: Sequence[str] = ()
) -> Any:
    """Decorates a function to register it as a metric.

    Without arguments, the metric has the function's name, and the function is called as ``function(opts)`` with a
    `MetricOptions`. With ``pattern``, a regular expression for the whole name, the function serves a family of names.
    It is called as ``function(opts, *groups)``. Groups of digits become int, unused groups become None. The function
    returns results by name as floats. Results of processes other than the first are ignored.

    Args:
        pattern: names of the family, such as ``r"fid(\\d+)k"``.
        names: members of the family to show in lists of metrics.

    A later registration with the same name or pattern replaces the earlier one.
    """

    def register(function: MetricFunction) -> MetricFunction:
        text = pattern if pattern is not None else re.escape(function.__name__)
        REGISTRY[:] = [metric for metric in REGISTRY if metric.pattern.pattern != text]
        shown = tuple(names) or (() if pattern is not None else (function.__name__,))
        REGISTRY.append(Metric(re.compile(text), function, shown))
        return function

    return register if function is None else register(function)


def is_valid_metric(metric: str) -> bool:
    """Returns whether a metric with this name exists."""
    return find(metric) is not None


def list_valid_metrics() -> list[str]:
    """Returns the names of metrics, and for families only the usual members."""
    return [name for metric in REGISTRY for name in metric.names]


def describe_metrics() -> list[tuple[str, str]]:
    """Returns the usual names of every metric, joined by commas, with the first line of its docstring."""
    texts = [(metric.function.__doc__ or "").strip().split("\n")[0].rstrip(".") for metric in REGISTRY]
    return [(", ".join(metric.names), text) for metric, text in zip(REGISTRY, texts, strict=True) if metric.names]


def load_plugins(module_names: Iterable[str]) -> None:
    """Import modules that register further metrics.

    Raises:
        UserError: a module does not exist.
    """
    for name in module_names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise UserError(f"There is no metrics module {name!r}. Check the name.") from error


def find(name: str) -> Metric | None:
    """Returns the metric with this name, or None."""
    return next((metric for metric in reversed(REGISTRY) if metric.pattern.fullmatch(name)), None)


def require(name: str) -> Metric:
    """Returns the metric with this name.

    Raises:
        UserError: no metric has this name.
    """
    found = find(name)
    if found is None:
        raise UserError(f"Unknown metric {name!r}. Choose from: {', '.join(list_valid_metrics())}.")
    return found


def split_names(text: str) -> list[str]:
    """Returns the names in a text that separates names by commas."""
    return [name for part in text.split(",") if (name := part.strip())]


def arguments(metric: Metric, name: str) -> list[Any]:
    """Returns the arguments that follow the options in a call of the metric. They are parts of `name`."""
    groups = metric.pattern.fullmatch(name).groups()
    return [int(group) if group is not None and group.isdecimal() else group for group in groups]
