"""Prints a table of devices, kernels and libraries on this machine: `python -m semantic.doctor`."""

import contextlib
import importlib.util
import os
import platform
import shutil
import tempfile
from pathlib import Path

import click
import torch

from dnnlib import Command, UserError, make_cache_dir_path
from dnnlib.option_types import kernels_option
from semantic.local import onednn, ops
from torch_utils.devices import multiplies_bfloat16, select_device
from torch_utils.ops import bias_act, proof, triton_support, upfirdn2d

EXTRAS = {
    "logs": ["tensorboard"],
    "plots": ["matplotlib"],
    "lmdb": ["lmdb"],
    "web": ["fastapi", "uvicorn"],
    "safetensors": ["safetensors"],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
}
"""Packages that `pip install 'semantic-stylegan[EXTRA]'` installs, by extra."""
SHARED_MEMORY = "/dev/shm"


def examine(device: torch.device) -> list[tuple[str, str]]:
    """Returns the rows of the table: subject and finding.

    Args:
        device: device that tests the kernels.
    """
    rows = [("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")]
    rows.append(("PyTorch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}"))
    rows.append(("Device", _device(device)))
    rows += _kernels(device)
    rows.append(("oneDNN", _onednn()))
    rows.append(("Loader", _loader()))
    rows.append(("ffmpeg", _ffmpeg()))
    rows.append(("Cache folder", _cache()))
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        advice = f"{', '.join(missing)} missing: pip install 'semantic-stylegan[{extra}]'"
        rows.append((f"Extra [{extra}]", advice if missing else "installed"))
    return rows


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    found = torch.cuda.get_device_properties(device)
    return f"{found.name}, compute capability {found.major}.{found.minor}, {found.total_memory / 2**30:.0f} GiB"


def _kernels(device: torch.device) -> list[tuple[str, str]]:
    """Returns one row for each tested kernel, or one row with the reason why no kernel runs."""
    if not triton_support.runs_on(torch.zeros(1, device=device)):
        reason = "--kernels=plain" if proof.mode() == "plain" else "kernels need a GPU and Triton"
        return [("Kernels", f"the plain forms run: {reason}")]
    with torch.no_grad():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            _use_kernels(device, dtype)
    rows = [(name, f"the plain form runs: {why}" if why else "proven") for name, why in proof.results().items()]
    return rows or [("Kernels", "run without a test")]


def _use_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Run each operator once as in training, so that its kernels are tested."""
    taps = upfirdn2d.setup_filter([1, 3, 3, 1], device=device)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.zeros([1, 8, 8, 8], dtype=dtype, device=device).to(memory_format=layout)
        bias_act.bias_act(x, torch.zeros([8], dtype=dtype, device=device), act="lrelu")
        upfirdn2d.upfirdn2d(x, taps, up=2, padding=[2, 1, 2, 1], gain=4)
        upfirdn2d.upfirdn2d(x, taps, down=2, padding=1)

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    ops.run_layers(zeros(64, 16), zeros(10, 1, 2, 64, 64), zeros(10, 2, 64), zeros(2, 64), zeros(2), 8)
    ops.fuse(zeros(1, 2, 64, 16), zeros(1, 2, 16), zeros(2, 64, 64), zeros(2, 64))


def _onednn() -> str:
    if not torch.backends.mkldnn.is_available():
        return "missing in this PyTorch, so local generators use the slower form"
    form = "used by local generators" if onednn._linear_pointwise is not None else "not used by local generators"
    amx = multiplies_bfloat16("cpu")
    return f"{torch.backends.cpu.get_cpu_capability()}, {form}{', AMX: --precision=bf16 is fast' if amx else ''}"


def _loader() -> str:
    if not os.path.isdir(SHARED_MEMORY):
        return "processes share memory through files"
    free = shutil.disk_usage(SHARED_MEMORY).free / 2**20
    advice = ". Use --workers=0, or start the container with --shm-size=1g" if free < 256 else ""
    return f"{free:.0f} MB of shared memory{advice}"


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        return f"missing, so no videos can be written: {' '.join(str(error).split())[:100]}"


def _cache() -> str:
    folder = make_cache_dir_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}). Set DNNLIB_CACHE_DIR."
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    size = 0
    for path in files:
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return f"{folder}, {len(files)} files, {size / 2**20:.0f} MB"


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device to examine.")
@kernels_option
def main(device: str) -> None:
    """Print the devices, kernels and libraries that this machine offers.

    \b
    Example:
      python -m semantic.doctor
    """
    if proof.mode() == "strict":
        raise UserError("The table shows every kernel. Choose --kernels=auto or --kernels=plain.")
    rows = examine(select_device(device))
    width = max(len(name) for name, _ in rows)
    for name, found in rows:
        click.echo(f"{name:<{width}}  {found}")


if __name__ == "__main__":
    main()
