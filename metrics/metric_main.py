"""Metrics by name: registering, computing and reporting them."""

import contextlib
import copy
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from dnnlib import EasyDict, UserError, append_line, format_time
from metrics.detectors import DetectorMissing
from metrics.options import MetricOptions
from torch_utils import distributed

MetricFunction = Callable[..., dict[str, float]]


class _Metric(NamedTuple):
    pattern: re.Pattern
    function: MetricFunction
    names: tuple[str, ...]


_registry: list[_Metric] = []


def register_metric(
    function: MetricFunction | None = None, *, pattern: str | None = None, names: Sequence[str] = ()
) -> Any:
    """Decorator that makes a function a metric.

    Bare, the metric has the function's name, and the function is called as ``function(opts)`` with a `MetricOptions`.
    With ``pattern``, a regular expression that must match the whole name, the function stands for a family of names
    and is called as ``function(opts, *groups)``: the groups of the match, as int where they are digits, None where
    they did not take part. It returns results by name as floats; on all processes but the first they are ignored.

    Args:
        pattern: names of the family, such as ``r"fid(\\d+)k"``.
        names: members of the family that lists of metrics show.

    A later registration of the same name or pattern replaces the earlier one.
    """

    def register(function: MetricFunction) -> MetricFunction:
        text = pattern if pattern is not None else re.escape(function.__name__)
        _registry[:] = [metric for metric in _registry if metric.pattern.pattern != text]
        shown = tuple(names) or (() if pattern is not None else (function.__name__,))
        _registry.append(_Metric(re.compile(text), function, shown))
        return function

    return register if function is None else register(function)


def is_valid_metric(metric: str) -> bool:
    """Whether a metric of that name can be computed."""
    _load_framework()
    return _find(metric) is not None


def list_valid_metrics() -> list[str]:
    """Names of metrics; of families only their usual members."""
    _load_framework()
    return [name for metric in _registry for name in metric.names]


def describe_metrics() -> list[tuple[str, str]]:
    """Usual names of every metric, joined by commas, and the first line of what its function says about it."""
    _load_framework()
    texts = [(metric.function.__doc__ or "").strip().split("\n")[0].rstrip(".") for metric in _registry]
    return [(", ".join(metric.names), text) for metric, text in zip(_registry, texts, strict=True) if metric.names]


def load_plugins(module_names: Iterable[str]) -> None:
    """Import modules that register further metrics.

    Raises:
        UserError: there is no such module.
    """
    _load_framework()
    for name in module_names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise UserError(f"There is no module {name!r} with metrics: check the name.") from error


def calc_metric(
    metric: str,
    G: torch.nn.Module | None = None,
    dataset_kwargs: Mapping[str, Any] | None = None,
    num_gpus: int = 1,
    rank: int = 0,
    device: torch.device | str | None = None,
    **options: Any,
) -> EasyDict:
    """Compute one metric; all processes call it alike and get the same result.

    Args:
        metric: name, see `list_valid_metrics`.
        G: the generator; a copy is used.
        dataset_kwargs: class name and options of the real data.
        num_gpus, rank: processes that share the work, and which one this is.
        device: where to compute; by default where G is.
        options: further fields of `MetricOptions`: G_kwargs, progress, detector, cache, seed, batch_size.

    Returns:
        results (name -> float), metric, total_time (seconds), total_time_str, num_gpus.

    Raises:
        DetectorMissing: the metric needs a feature network that is not there.
        UserError: no metric of that name, or data and network do not fit.
    """
    _load_framework()
    found = _find(metric)
    if found is None:
        raise UserError(f"There is no metric {metric!r}. Choose from: {', '.join(list_valid_metrics())}.")
    if device is None:
        device = next((p.device for p in G.parameters()), "cpu") if G is not None else "cpu"
    opts = MetricOptions(
        metric=metric,
        dataset_kwargs=dict(dataset_kwargs or {}),
        num_gpus=num_gpus,
        rank=rank,
        device=torch.device(device),
        **options,
    )
    if G is not None:
        opts.G = copy.deepcopy(G).eval().requires_grad_(False).to(opts.device)
    start = time.monotonic()
    with torch.no_grad(), _full_precision():
        results = found.function(opts, *_arguments(found, metric))
    results = {name: float(value) for name, value in (results or {}).items()}
    if num_gpus > 1:
        results = distributed.broadcast(results)
    seconds = time.monotonic() - start
    return EasyDict(
        results=EasyDict(results),
        metric=metric,
        total_time=seconds,
        total_time_str=format_time(seconds),
        num_gpus=num_gpus,
    )


def report_metric(
    result_dict: Mapping[str, Any], run_dir: str | os.PathLike | None = None, snapshot_pkl: Any = None
) -> None:
    """Print a result as one line of JSON and append it to ``metric-<name>.jsonl`` in `run_dir`.

    Raises:
        UserError: the file cannot be written.
    """
    if run_dir is not None and snapshot_pkl is not None:
        snapshot_pkl = os.path.relpath(snapshot_pkl, run_dir)
    line = json.dumps({**result_dict, "snapshot_pkl": snapshot_pkl, "timestamp": time.time()})
    print(line, flush=True)
    if run_dir is not None:
        path = os.path.join(run_dir, f"metric-{result_dict['metric']}.jsonl")
        append_line(path, line)


def evaluate(
    metrics: Iterable[str],
    run_dir: str | os.PathLike | None = None,
    snapshot_pkl: Any = None,
    rank: int = 0,
    plugins: Iterable[str] = (),
    **options: Any,
) -> tuple[list[EasyDict], list[str]]:
    """Compute and report several metrics; one whose feature network is missing is left out, with a line saying so.

    Args:
        metrics: names.
        run_dir, snapshot_pkl: see `report_metric`.
        plugins: see `load_plugins`.
        options: see `calc_metric`.

    Returns:
        The results, and a line for each metric that was left out.
    """
    load_plugins(plugins)
    results, missing = [], []
    for metric in metrics:
        try:
            result = calc_metric(metric, rank=rank, **options)
        except DetectorMissing as error:
            missing.append(error.message)
            if rank == 0:
                print(f"Left out: {error.message}", file=sys.stderr, flush=True)
            continue
        results.append(result)
        if rank == 0:
            report_metric(result, run_dir, snapshot_pkl)
    return results, missing


def _load_framework() -> None:
    importlib.import_module("metrics.standard")


def _find(name: str) -> _Metric | None:
    return next((metric for metric in reversed(_registry) if metric.pattern.fullmatch(name)), None)


def _arguments(metric: _Metric, name: str) -> list[Any]:
    groups = metric.pattern.fullmatch(name).groups()
    return [int(group) if group is not None and group.isdecimal() else group for group in groups]


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 while features are computed: it moves FID in the third digit."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
