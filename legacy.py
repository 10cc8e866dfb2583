"""Reads network files of all formats, without running code from the file, and converts between formats."""

import copy
import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import click
import torch

from dnnlib import Command, EasyDict, UserError, open_url
from dnnlib.util import is_url
from torch_utils.network_files import classes, machine, rebuild
from training import compact, formats, upstream
from training.run.snapshots import save_networks

NETWORKS = ("G", "D", "G_ema")
KEYS = (*NETWORKS, "augment_pipe", "training_set_kwargs")
SIZES = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "num_ws")
PACKAGES = ("training", "semantic")

_SEMANTIC = "https://github.com/seasonSH/SemanticStyleGAN/releases/download/1.0.0"
_TRANSFER = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets"
BUNDLED = Path(__file__).resolve().parent / "semantic/bundled"
NAMED = {
    "celebamask512": f"{_SEMANTIC}/CelebAMask-HQ-512x512.pt",
    "bitmoji512": f"{_SEMANTIC}/BitMoji-512x512.pt",
    "metfaces512": f"{_SEMANTIC}/MetFaces-512x512.pt",
    "toonify512": f"{_SEMANTIC}/Toonify-512x512.pt",
    "ffhq256": f"{_TRANSFER}/ffhq-res256-mirror-paper256-noaug.pkl",
    "ffhq512": f"{_TRANSFER}/ffhq-res512-mirror-stylegan2-noaug.pkl",
    "ffhq1024": f"{_TRANSFER}/ffhq-res1024-mirror-stylegan2-noaug.pkl",
    "celebahq256": f"{_TRANSFER}/celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
    "lsundog256": f"{_TRANSFER}/lsundog-res256-paper256-kimg100000-noaug.pkl",
    "faces128": str(BUNDLED / "faces128.pkl"),
    "faces64": str(BUNDLED / "faces64.npz"),
}
"""Names that can replace the path of a network. faces128 and faces64 come with the project; faces128 is the default."""


def resolve(name: str) -> str:
    """Returns the address or path of a network. Looks up names in `NAMED`, and returns other texts unchanged."""
    return NAMED.get(name, name)


def find_network() -> Path:
    """Returns the default network: the bundled network, else the newest snapshot under training-runs.

    Raises:
        UserError: neither exists.
    """
    bundled = sorted(
        path for path in BUNDLED.glob("*") if path.suffix in (".pkl", ".safetensors") and _is_network(path)
    )
    return bundled[0] if bundled else newest_snapshot("training-runs")


def choose_network(name: str | None) -> str:
    """Returns the path or address of a network.

    Args:
        name: a file, an address, a name from `NAMED`, or a run directory, which stands for its newest snapshot. None
            stands for `find_network()`.

    Raises:
        UserError: the run directory holds no network, or there is no default network.
    """
    path = find_network() if name is None else resolve(name)
    return str(newest_snapshot(path) if os.path.isdir(path) else path)


def newest_snapshot(folder: str | Path) -> Path:
    """Returns the newest network snapshot in `folder` or its subfolders.

    Raises:
        UserError: there is no snapshot.
    """
    snapshots = [path for path in Path(folder).glob("**/network-snapshot-*.pkl") if _is_network(path)]
    if not snapshots:
        raise UserError(
            f"There is no network-snapshot-*.pkl under {folder}. Name a network file, or train a network with "
            "`python train.py --cfg=semantic --data=ZIP`."
        )
    return max(snapshots, key=lambda path: (path.stat().st_mtime, path.name))


def _is_network(path: Path) -> bool:
    """Returns whether the name of a file is the name of a network, not of the encoder beside it."""
    from semantic.encoder import SUFFIX

    return not path.name.endswith(SUFFIX)


def load_network(path_or_url: str | os.PathLike) -> EasyDict:
    """Read a network file: ours (.pkl, .safetensors, .npz), StyleGAN2-ADA's (.pkl) or SemanticStyleGAN's (.pt).

    The format follows from the content of the file, not from its name.

    Args:
        path_or_url: a path, an address, a name from `NAMED`, or a run directory, whose newest snapshot is read.

    Returns:
        G, D, G_ema, augment_pipe and training_set_kwargs. All but G_ema may be None. Networks are in evaluation mode,
        on the CPU.

    Raises:
        UserError: the file cannot be opened, is damaged, or has another format.
    """
    source = choose_network(os.fspath(path_or_url))
    if not is_url(source, allow_file_urls=True) and not os.path.exists(source):
        raise UserError(f"There is no file {source}, and no network of this name. The names are: {', '.join(NAMED)}.")
    with open_url(source) as file:
        return load_network_pkl(file, where=source)


def load_network_pkl(f: BinaryIO, force_fp16: bool = False, where: str | None = None, **ignored: Any) -> EasyDict:
    """Read a network file that is open for binary reading. See `load_network`.

    Args:
        f: file object.
        force_fp16: let plain networks compute the four highest resolutions in half precision on a GPU. Semantic
            networks have no such layers and do not change.
        where: name of the file in messages. None uses the name of the file object.
        ignored: further options of other scripts.
    """
    where = where or machine.describe(f)
    if not f.seekable():
        f = io.BytesIO(f.read())
    head = f.read(9)
    f.seek(-len(head), os.SEEK_CUR)
    if head.startswith(b"PK\x03\x04"):
        data = _read_zip(f, where)
    elif head.startswith(b"\x80"):
        data = _checked(_read_pickle(f, where), where)
    elif head.endswith(b"{") and len(head) == 9:
        data = _checked(formats.load_safetensors(f, PACKAGES, where), where)
    else:
        raise UserError(f"{where} is not a network file. Expected .pkl, .safetensors, .npz or .pt.")
    return forced_fp16(data, where) if force_fp16 else data


def save_network(data: dict[str, Any], path: str | os.PathLike) -> None:
    """Write G, D, G_ema, augment_pipe and training_set_kwargs as a .pkl in StyleGAN2-ADA's layout.

    The file holds copies of the networks in evaluation mode without gradients. `data` does not change. The file
    appears only when it is complete.
    """
    save_networks(path, data.get("training_set_kwargs"), **{key: data.get(key) for key in KEYS[:-1]})


def halved(data: dict[str, Any]) -> EasyDict:
    """Returns a copy of the networks with weights in half precision, for files of half the size.

    `load_network` converts the weights back to single precision, rounded to 11 significant bits.

    Raises:
        UserError: a weight is too large for half precision.
    """
    found = EasyDict((key, copy.deepcopy(value)) for key, value in data.items())
    for key in NETWORKS:
        network = found[key]
        if network is None:
            continue
        kept = network.state_dict()  # tensors outside of the state dictionary stay exact
        for name, tensor in rebuild.named_tensors(network).items():
            if name in kept and tensor.dtype == torch.float32:
                tensor.data = tensor.data.half()
                if not tensor.data.isfinite().all():
                    raise UserError(f"{key} has numbers in {name} that are too large for half precision.")
    return found


def forced_fp16(data: dict[str, Any], where: str = "The file") -> EasyDict:
    """Returns the networks, with plain networks computing the four highest resolutions in half precision on a GPU."""
    networks = {key: data[key] for key in NETWORKS if upstream.is_plain(data[key])}
    return EasyDict({**data, **{key: upstream.with_half_layers(net, where) for key, net in networks.items()}})


def _checked(data: Any, where: str) -> EasyDict:
    """Returns the dictionary of `load_network` from the object in a file.

    If the object is a generator, as in files of some scripts, the generator becomes both G and G_ema.
    """
    if isinstance(data, torch.nn.Module):
        data = {**dict.fromkeys(KEYS), "G": data, "G_ema": data}
    if not isinstance(data, dict):
        raise UserError(f"{where} holds no dictionary of networks. Expected G, D and G_ema.")
    for key in NETWORKS:
        if key not in data:
            raise UserError(f"{where} has no {key}. A network file holds G, D and G_ema.")
    if data["G_ema"] is None:
        raise UserError(f"{where} has an empty G_ema, so it holds no network.")
    for key in (*NETWORKS, "augment_pipe"):
        if not isinstance(data.get(key), (torch.nn.Module, type(None))):
            raise UserError(f"{where} has a {type(data[key]).__name__} instead of a network as its {key}.")
    if not isinstance(data.get("training_set_kwargs"), (dict, type(None))):
        raise UserError(f"{where} has no dictionary of training_set_kwargs.")
    for key in ("G", "G_ema"):
        if data[key] is None:
            continue
        if not (hasattr(data[key], "mapping") and hasattr(data[key], "synthesis")):
            raise UserError(f"{where} has a {type(data[key]).__name__} instead of a generator as its {key}.")
        wrong = next((name for name in SIZES if type(getattr(data[key], name, 0)) is not int), None)
        if wrong is not None:
            raise UserError(f"{where}: {wrong} of its {key} is {getattr(data[key], wrong)!r}, not an integer.")
    for key in NETWORKS:
        if data[key] is not None:
            data[key].eval().requires_grad_(False)
    found = EasyDict((key, data.get(key)) for key in KEYS)
    if found.training_set_kwargs is not None:
        found.training_set_kwargs = EasyDict(found.training_set_kwargs)
    return found


def _read_pickle(file: BinaryIO, where: str) -> Any:
    try:
        data = machine.load(file, classes.PUBLISHED, PACKAGES, where)
    except UserError as error:
        if "dnnlib.tflib" in error.message:
            raise UserError(
                f"{where} is a TensorFlow network. Convert it with stylegan2-ada-pytorch's legacy.py first."
            ) from error
        raise
    if data == machine.LEGACY_MAGIC:
        raise UserError(f"{where} has the file format of torch before 1.6. Save it again with a newer torch.")
    return data


def _read_zip(file: BinaryIO, where: str) -> EasyDict:
    """Returns the networks of a small file of ours (.npz), or of a published checkpoint (.pt)."""
    if compact.is_compact(file):
        return _checked(compact.load_compact(file, PACKAGES, where), where)
    return _read_published(file, where)


def _read_published(file: BinaryIO, where: str) -> EasyDict:
    """Returns the networks of a published SemanticStyleGAN checkpoint, or raises UserError for other zip archives."""
    from semantic import published

    try:
        return published.load(file, where)
    except UserError as error:
        raise UserError(error.message if where in error.message else f"{where}: {error.message}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UserError(f"{where} is not a SemanticStyleGAN checkpoint: {reason}.") from error


@click.command(cls=Command)
@click.option("--source", help="Network to read: path, address or name", metavar="FILE", required=True)
@click.option("--dest", help="File to write: .pkl, .safetensors, .npz or .onnx", metavar="FILE", required=True)
@click.option("--half", is_flag=True, help="Store weights in half precision (.pkl and .safetensors)")
@click.option("--force-fp16", is_flag=True, help="Let a plain network compute in half precision on a GPU")
@click.option(
    "--format", "layout", type=click.Choice(["ours", "upstream"]), default="ours", help="Tools that open the .pkl"
)
def main(source: str, dest: str, half: bool, force_fp16: bool, layout: str) -> None:
    """Convert a network between file formats.

    \b
    .pkl          G, D, G_ema, augment_pipe and training_set_kwargs, as StyleGAN2-ADA's tools expect
    .safetensors  the same, readable without Python
    .npz          small: weights of 8 bits (D: 6 bits), and G_ema as G; about a quarter of the size of --half
    .onnx         only G_ema: z, truncation_psi -> image, mask, ws

    The first two formats keep weights bit by bit. --half rounds weights to half precision for half the size.

    A .pkl opens in this project. With --format=upstream it also opens in NVIDIA's stylegan2-ada-pytorch and stylegan3.
    This works for plain StyleGAN2 networks only.

    --force-fp16 changes how a plain network computes: its four highest resolutions run in half precision on a GPU.

    \b
    Examples:
      python legacy.py --source=celebamask512 --dest=faces.pkl
      python legacy.py --source=faces.pkl --dest=faces.safetensors
      python legacy.py --source=faces.pkl --dest=faces.onnx
      python legacy.py --source=network-snapshot-000100.pkl --dest=small.pkl --half
      python legacy.py --source=network-snapshot-000100.pkl --dest=for-nvidia.pkl --format=upstream
    """
    writers = {
        ".pkl": upstream.save_upstream if layout == "upstream" else save_network,
        ".safetensors": formats.save_safetensors,
        ".npz": compact.save_compact,
        ".onnx": lambda data, path: formats.save_onnx(data["G_ema"], path),
    }
    suffix = Path(dest).suffix.lower()
    write = writers.get(suffix)
    if write is None:
        raise UserError(f"Cannot write {dest}. Choose a name that ends in {', '.join(writers)}.")
    if half and suffix in (".npz", ".onnx"):
        raise click.UsageError("--half is for .pkl and .safetensors.")
    if layout == "upstream" and suffix != ".pkl":
        raise click.UsageError("--format=upstream is for .pkl.")
    data = load_network(source)
    if force_fp16 and not upstream.is_plain(data.G_ema):
        raise UserError(f"--force-fp16 works for plain StyleGAN2 networks only. Remove it for {source}.")
    data = forced_fp16(data, source) if force_fp16 else data
    write(halved(data) if half else data, dest)
    click.echo(f"Wrote {dest} ({Path(dest).stat().st_size / 2**20:.1f} MiB).")


if __name__ == "__main__":
    main()
