"""Exports plain StyleGAN2 networks to NVIDIA's own code: half precision layers, and a pickle that NVIDIA's code opens.

NVIDIA's code builds an object of a pickle by running source text from the pickle. The source text written here is
`SOURCE`. It imports NVIDIA's classes, builds a network from the recorded constructor arguments, and loads the tensors.
"""

import os
import pickle
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import EasyDict, UserError, atomic_open
from torch_utils import persistence
from torch_utils.network_files import rebuild
from training.networks import Discriminator, Generator

HALF_LAYERS = {"num_fp16_res": 4, "conv_clamp": 256}
DATASET = "training.dataset.ImageFolderDataset"
DATASET_ARGUMENTS = ("class_name", "path", "use_labels", "max_size", "xflip", "random_seed", "resolution")
MAPPING_DEFAULTS = {"num_layers": 8}
WIDTH_DEFAULTS = {"channel_base": 32768, "channel_max": 512, "num_fp16_res": 0, "conv_clamp": None}
OURS = ("half_dtype", "fused_modconv_default")
"""Options of blocks that one of NVIDIA's two code bases does not have."""

SOURCE = '''"""Builds a network by NVIDIA's StyleGAN2 code, from constructor arguments and tensors."""

try:
    from training import networks_stylegan2 as networks  # the later code base, stylegan3
except ImportError:
    from training import networks  # stylegan2-ada-pytorch


def restore(network, cls, state):
    options = dict(state["_init_kwargs"])
    if networks.__name__.endswith("networks_stylegan2"):
        options.update(options.pop("synthesis_kwargs", {}))
    network.__class__ = cls  # from now on it is an object of that code alone
    network.__init__(**options)
    network.load_state_dict({**state["_parameters"], **state["_buffers"]})
    network.eval().requires_grad_(False)


class Generator(networks.Generator):
    def __setstate__(self, state):
        restore(self, networks.Generator, state)


class Discriminator(networks.Discriminator):
    def __setstate__(self, state):
        restore(self, networks.Discriminator, state)
'''


def is_plain(network: Any) -> bool:
    """Returns whether `network` is a generator or a discriminator that NVIDIA's code can build."""
    return type(network) in (Generator, Discriminator)


def with_half_layers(network: torch.nn.Module, where: str) -> torch.nn.Module:
    """Returns a copy of a plain network that computes the four highest resolutions in half precision on a GPU.

    Other values of `num_fp16_res` or `conv_clamp` are changed too. The weights stay the same.
    """
    options = _arguments(network)
    options.get("synthesis_kwargs", options).update(HALF_LAYERS)
    twin = rebuild.build_module(type(network), [], options, rebuild.named_tensors(network), where)
    return twin.train(network.training).requires_grad_(False)


def save_upstream(data: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write G, D and G_ema as a pickle that stylegan2-ada-pytorch and stylegan3 open.

    The augmentation and options of the data set that NVIDIA's code lacks are omitted. Layers in bfloat16, which
    NVIDIA's code does not support, become single precision.

    Args:
        data: G, D, G_ema (each a plain network or None) and training_set_kwargs.
        path: file to write. It appears only when it is complete.

    Raises:
        UserError: a network is not a plain StyleGAN2 network.
    """
    for key in ("G", "D", "G_ema"):
        if data.get(key) is not None and not is_plain(data[key]):
            kind = f"{type(data[key]).__module__}.{type(data[key]).__qualname__}"
            raise UserError(
                f"NVIDIA's code has no class for {key}, a {kind}. Only plain StyleGAN2 networks can be written."
            )
    networks = {key: _Described(data[key]) if data.get(key) is not None else None for key in ("G", "D", "G_ema")}
    found = data.get("training_set_kwargs") or {}
    dataset = {name: found[name] for name in DATASET_ARGUMENTS if name in found}
    with atomic_open(path, "wb") as file:
        known = dataset.get("class_name") == DATASET
        pickle.dump({**networks, "augment_pipe": None, "training_set_kwargs": dataset if known else None}, file, 4)


class _Described:
    """Represents a network while a pickle is written."""

    def __init__(self, network: torch.nn.Module):
        self.network = network

    def __reduce__(self) -> tuple:
        learned = dict(self.network.named_parameters())
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.network.state_dict().items()}
        state = {
            "_init_args": (),
            "_init_kwargs": _for_upstream(self.network),
            "_parameters": {name: tensor for name, tensor in tensors.items() if name in learned},
            "_buffers": {name: tensor for name, tensor in tensors.items() if name not in learned},
            "_modules": {},
            "training": False,
        }
        name = type(self.network).__name__
        meta = EasyDict(
            type="class", version=persistence.FORMAT_VERSION, module_src=SOURCE, class_name=name, state=state
        )
        return persistence._reconstruct_persistent_obj, (meta,)


def _arguments(network: torch.nn.Module) -> dict[str, Any]:
    """Returns the constructor arguments by name, in dictionaries that may be changed."""
    options = persistence.named_arguments(network)
    for name in ("mapping_kwargs", "synthesis_kwargs") if isinstance(network, Generator) else ():
        options[name] = dict(options.get(name) or {})
    return options


def _for_upstream(network: torch.nn.Module) -> dict[str, Any]:
    """Returns constructor arguments without defaults, since the defaults of NVIDIA's two code bases differ."""
    options = _arguments(network)
    if isinstance(network, Generator):
        options["mapping_kwargs"] = MAPPING_DEFAULTS | options["mapping_kwargs"]
    width = options.get("synthesis_kwargs", options)
    blocks = width if isinstance(network, Generator) else dict(options.get("block_kwargs") or {})
    if blocks.get("half_dtype", "float16") != "float16":
        width["num_fp16_res"] = 0
    width.update(WIDTH_DEFAULTS | width)
    for name in OURS:
        blocks.pop(name, None)
    if blocks is not width:
        options["block_kwargs"] = blocks
    return _plain(options)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
