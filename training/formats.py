"""Networks in formats of other tools: .safetensors and .onnx."""

import importlib.util
import inspect
import json
import logging
import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any, BinaryIO

import numpy as np
import torch

from dnnlib import UserError, atomic_open, atomic_path
from torch_utils.network_files import rebuild

NETWORKS = ("G", "D", "G_ema", "augment_pipe")
FORMAT = "semantic-stylegan-1"
MAX_HEADER = 64 << 20
ONNX_TOLERANCE = 1e-3


def save_safetensors(data: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write networks as .safetensors, without any loss.

    Tensors have the names of the networks, such as `G_ema.synthesis.b4.conv1.weight`. The metadata are JSON. `networks`
    holds class and constructor arguments of each network. `w_avg` names the tensor for the centre of truncation.
    `regions` (of a semantic network) and `training_set_kwargs` follow.

    Args:
        data: G, D, G_ema, augment_pipe (each a persistent network or None) and training_set_kwargs.
        path: file to write. It appears only when it is complete.

    Raises:
        UserError: safetensors is not installed.
    """
    library = _safetensors()
    tensors: dict[str, torch.Tensor] = {}
    for key in NETWORKS:
        if data.get(key) is not None:
            for name, tensor in rebuild.named_tensors(data[key]).items():
                tensors[f"{key}.{name}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    with atomic_open(path, "wb") as file:
        file.write(library.save(tensors, describe(data)))


def describe(data: Mapping[str, Any]) -> dict[str, str]:
    """Returns the metadata of `save_safetensors`: all that a file must tell of its networks besides their tensors."""
    metadata = {
        "format": FORMAT,
        "networks": json.dumps({key: _description(data.get(key)) for key in NETWORKS}),
        "training_set_kwargs": json.dumps(_to_json(data.get("training_set_kwargs"))),
        "w_avg": "G_ema.mapping.w_avg",
    }
    regions = data["G_ema"].init_kwargs.get("regions")
    if regions is not None:
        metadata["regions"] = json.dumps(_to_json(regions))
    return metadata


def _description(network: Any) -> dict[str, Any] | None:
    if network is None:
        return None
    return {
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
        "args": _to_json(network.init_args),
        "kwargs": _to_json(network.init_kwargs),
    }


def load_safetensors(file: BinaryIO, packages: Collection[str], where: str) -> dict[str, Any]:
    """Read networks that `save_safetensors` wrote.

    Args:
        file: file object, open for binary reading.
        packages: top-level packages in which the file may name network classes.
        where: name of the file in messages.

    Raises:
        UserError: safetensors is missing, the file is damaged or holds other networks, or its tensors do not fit.
    """
    library = _safetensors()
    content = file.read()
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + min(length, MAX_HEADER)]).get("__metadata__") or {}
        if metadata.get("format") != FORMAT:
            raise UserError(f"{where} does not name its network. Only .safetensors files of this project can be read.")
        tensors = library.load(content)
    except UserError:
        raise
    except Exception as error:
        raise damaged(where, ".safetensors", error) from error
    return rebuild_networks(metadata, tensors, packages, where, ".safetensors")


def rebuild_networks(
    metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor], packages: Collection[str], where: str, kind: str
) -> dict[str, Any]:
    """Returns the networks of the metadata, with tensors of the names of `save_safetensors`. See `load_safetensors`.

    Args:
        kind: suffix of such files, for messages.
    """
    try:
        networks = json.loads(metadata["networks"])
        specs = {key: _specification(networks[key]) for key in NETWORKS}
        data = {"training_set_kwargs": _from_json(json.loads(metadata["training_set_kwargs"]))}
    except Exception as error:
        raise damaged(where, kind, error) from error
    for key, specification in specs.items():
        data[key] = None
        if specification is not None:
            name, args, kwargs = specification
            cls = rebuild.find_network_class(name, packages, f"{key} in {where}")
            own = {n.removeprefix(f"{key}."): t for n, t in tensors.items() if n.startswith(f"{key}.")}
            network = rebuild.build_module(cls, args, kwargs, own, f"{key} in {where}")
            data[key] = network.eval().requires_grad_(False)
    return data


def damaged(where: str, kind: str, error: Exception) -> UserError:
    """Returns the error for a file of which a part is missing or makes no sense."""
    reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return UserError(f"{where} is not a complete {kind} file: {reason}. Download or copy it again.")


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise UserError(
            "To use .safetensors files, install safetensors: pip install 'semantic-stylegan[safetensors]'"
        ) from error
    return safetensors.torch


def _specification(entry: Any) -> tuple[str, Any, Any] | None:
    if entry is None:
        return None
    name, args, kwargs = entry["class"], _from_json(entry["args"]), _from_json(entry["kwargs"])
    if not (isinstance(name, str) and isinstance(args, list) and isinstance(kwargs, dict)):
        raise TypeError("a network lacks its class and arguments")
    return name, args, kwargs


def _to_json(value: Any) -> Any:
    """Returns plain data for JSON. A dictionary with keys other than text becomes {"items": [[key, value], ...]}."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and set(value) != {"items"}:
            return {key: _to_json(item) for key, item in value.items()}
        return {"items": [[key, _to_json(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        items = value["items"] if set(value) == {"items"} else value.items()
        return {key: _from_json(item) for key, item in items}
    return [_from_json(item) for item in value] if isinstance(value, list) else value


class _Sampling(torch.nn.Module):
    """The computation of the .onnx file: maps latents, labels and truncation to image, mask and codes."""

    def __init__(self, G: torch.nn.Module):
        super().__init__()
        self.G = G
        self.has_masks = "return_mask" in inspect.signature(G.synthesis.forward).parameters
        self.inputs = ["z", *(["c"] if G.c_dim else []), "truncation_psi"]
        self.outputs = ["image", *(["mask"] if self.has_masks else []), "ws"]

    def forward(self, z: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *c, psi = rest
        ws = self.G.mapping(z, c[0] if c else None)
        ws = self.G.mapping.w_avg + psi * (ws - self.G.mapping.w_avg)
        if not self.has_masks:
            return self.G.synthesis(ws, noise_mode="const"), ws
        out = self.G.synthesis(ws, noise_mode="const", return_mask=True)
        return out.image, out.mask, ws


def save_onnx(G: torch.nn.Module, path: str | os.PathLike) -> None:
    """Write a generator as .onnx. If onnxruntime is installed, compare its results with PyTorch's results.

    Inputs: z [1, z_dim], c [1, c_dim] for conditional networks, truncation_psi (a number). Outputs: image
    [1, 3, R, R], mask [1, K, R, R] for semantic networks, ws [1, num_ws, w_dim]. Uses the stored noise.

    Raises:
        UserError: onnx and onnxscript are not installed, or the results differ.
    """
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise UserError("To write .onnx files, install onnx and onnxscript: pip install 'semantic-stylegan[onnx]'")
    network = _Sampling(G).eval()
    inputs = [torch.randn(1, G.z_dim, generator=torch.Generator().manual_seed(0))]
    if G.c_dim:
        inputs.append(torch.nn.functional.one_hot(torch.zeros(1, dtype=torch.int64), G.c_dim).float())
    inputs.append(torch.tensor(0.7))
    with atomic_path(path) as target:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in ("torch.onnx", "onnx_ir"):
                logging.getLogger(name).setLevel(logging.ERROR)
            torch.onnx.export(
                network,
                tuple(inputs),
                os.fspath(target),
                input_names=network.inputs,
                output_names=network.outputs,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            expected = network(*inputs)
        _compare(os.fspath(target), network, inputs, expected)


def _compare(path: str, network: _Sampling, inputs: list[torch.Tensor], expected: tuple[torch.Tensor, ...]) -> None:
    try:
        import onnxruntime
    except ImportError:
        return
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(network.inputs, inputs, strict=True)}
    for name, found, wanted in zip(network.outputs, session.run(None, feed), expected, strict=True):
        difference = np.abs(found - wanted.numpy()).max() / max(wanted.abs().max().item(), 1e-8)
        if not difference <= ONNX_TOLERANCE:
            raise UserError(
                f"The {name} of onnxruntime differs from PyTorch's by {difference:.2g}. No file was written."
            )
