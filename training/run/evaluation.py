"""Computes metrics at snapshots, reports them as statistics, and skips metrics that are already recorded."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metrics import metric_main
from torch_utils import distributed, training_stats
from training.run.folder import recorded_result


def report_metrics(
    metrics: Sequence[str],
    plugins: Sequence[str],
    G: torch.nn.Module,
    training_set_kwargs: Mapping[str, Any],
    run_dir: str,
    device: torch.device,
    network: str,
    logs: Mapping[str, int],
) -> None:
    """Compute the metrics of a snapshot on all processes, write them into the run directory and report them.

    A recorded result is not computed again. A metric that cannot be computed is skipped.

    Args:
        metrics: names of metrics.
        plugins: modules that register further metrics.
        G: the generator.
        training_set_kwargs: class name and options of the real data.
        run_dir: folder for the results.
        device: device that computes the metrics.
        network: file name of the snapshot.
        logs: sizes of the result files when the snapshot was made, see `training.run.folder.log_sizes`.
    """
    network_path = os.path.join(run_dir, network)
    for metric in metrics:
        file = f"metric-{metric}.jsonl"
        results = distributed.from_first(recorded_result, run_dir, metric, network_path, logs.get(file, 0))
        if results is None:
            computed, _ = metric_main.evaluate(
                [metric],
                plugins=plugins,
                run_dir=run_dir,
                snapshot_pkl=network_path,
                rank=distributed.get_rank(),
                G=G,
                dataset_kwargs=training_set_kwargs,
                num_gpus=distributed.get_world_size(),
                device=device,
            )
            results = {name: value for result in computed for name, value in result["results"].items()}
        for name, value in results.items():
            training_stats.report0(f"Metrics/{name}", value)
