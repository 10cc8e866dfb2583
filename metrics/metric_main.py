"""Computes and reports metrics by name."""

import contextlib
import copy
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from dnnlib import EasyDict, append_line, format_time
from metrics import standard  # noqa: F401 (registers its metrics)
from metrics.detectors import DetectorMissing
from metrics.options import MetricOptions
from metrics.registry import arguments, is_valid_metric, list_valid_metrics, load_plugins, register_metric, require
from torch_utils import distributed

__all__ = ["calc_metric", "evaluate", "is_valid_metric", "list_valid_metrics", "register_metric", "report_metric"]


def calc_metric(
    metric: str,
    G: torch.nn.Module | None = None,
    dataset_kwargs: Mapping[str, Any] | None = None,
    num_gpus: int = 1,
    rank: int = 0,
    device: torch.device | str | None = None,
    **options: Any,
) -> EasyDict:
    """Compute one metric. All processes must call this alike, and get the same result.

    Args:
        metric: name, see `list_valid_metrics`.
        G: the generator. A copy is used.
        dataset_kwargs: class name and options of the real data.
        num_gpus, rank: processes that share the work, and which one this is.
        device: device of the computation. The default is the device of G.
        options: further fields of `MetricOptions`: G_kwargs, progress, cache, detector, seed, batch_size.

    Returns:
        results (name -> float), metric, total_time (seconds), total_time_str, num_gpus.

    Raises:
        DetectorMissing: the feature network of the metric cannot be found.
        UserError: the metric does not exist, or data and network do not fit.
    """
    found = require(metric)
    opts = MetricOptions(
        G=G,
        metric=metric,
        dataset_kwargs=dataset_kwargs or {},
        num_gpus=num_gpus,
        rank=rank,
        device=device,
        **options,
    )
    if G is not None:
        opts.G = copy.deepcopy(G).eval().requires_grad_(False).to(opts.device)
    start = time.monotonic()
    with torch.no_grad(), _full_precision():
        results = found.function(opts, *arguments(found, metric))
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
    """Compute and report several metrics. A metric without its feature network is skipped, with a line about it.

    Args:
        metrics: names of metrics.
        run_dir, snapshot_pkl: see `report_metric`.
        plugins: see `load_plugins`.
        options: see `calc_metric`.

    Returns:
        The results, and a line for each skipped metric.
    """
    load_plugins(plugins)
    results, missing = [], []
    for metric in metrics:
        try:
            result = calc_metric(metric, rank=rank, **options)
        except DetectorMissing as error:
            missing.append(error.message)
            if rank == 0:
                print(f"Skipped: {error.message}", file=sys.stderr, flush=True)
            continue
        results.append(result)
        if rank == 0:
            report_metric(result, run_dir, snapshot_pkl)
    return results, missing


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Disables TF32 while features are computed. TF32 changes the third digit of FID."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
