"""Nothing within a training step, and nothing while images are made, waits for the device.

Everything runs on the meta device, where tensors have no values: whoever looks at one fails, and so does whoever mixes
it with a tensor that was left on the CPU. Copies from the host, which wait on a GPU, are refused here.
"""

import contextlib
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.overrides import TorchFunctionMode

import train
from dnnlib import construct_class_by_name
from metrics import sliced_wasserstein
from metrics.options import MetricOptions
from metrics.structural_similarity import compute_msssim
from semantic.metrics.common import iterate_latents
from semantic.metrics.region_leak import measure_edits
from tests.helpers import assert_close, shared_file
from torch_utils import training_stats
from training import augment, augment_transforms
from training.augment import AugmentPipe
from training.phases import build_phases
from training.weight_average import update_ema

META = torch.device("meta")
PHASES = ("Gmain", "Greg", "Dmain", "Dreg")


class NoCopies(TorchFunctionMode):
    """Refuses to make tensors on the device from Python's numbers, and to bring tensors there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        made = name in ("tensor", "as_tensor", "new_tensor", "from_numpy")
        moved = name in ("to", "cuda", "copy_") and any(isinstance(a, torch.Tensor) and a.device != META for a in args)
        if isinstance(result, torch.Tensor) and result.device == META and (made or moved):
            raise AssertionError(f"torch.{name} copies from the host to the device and waits")
        return result


@contextlib.contextmanager
def nothing_waits():
    with training_stats.muted(), NoCopies():
        yield


@pytest.fixture(autouse=True)
def stubs(monkeypatch):
    """Autocast does not know the device; constants are made anew for each test."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    augment_transforms.constant.cache_clear()
    yield
    augment_transforms.constant.cache_clear()


@pytest.fixture(scope="module")
def recipes(archive):
    """The options of runs, as train.py prints them."""
    found = {}
    for cfg in ("auto", "semantic"):
        args = ["--dry-run", "--device=cpu", f"--cfg={cfg}", f"--data={archive}", "--cbase=64", "--batch=4", "--cond=1"]
        result = CliRunner().invoke(train.main, [*args, "--augpipe=bgcfnc"])
        assert result.exit_code == 0, result.output
        found[cfg] = json.loads(result.stdout)
    return found


def build(options):
    """Networks, augmentation and loss of a run, all on the meta device."""
    data = construct_class_by_name(**options["training_set_kwargs"])
    sizes = {"c_dim": data.label_dim, "img_resolution": data.resolution, "img_channels": data.num_channels}
    G, D, G_ema = (construct_class_by_name(**options[name], **sizes).to(META) for name in
                   ("G_kwargs", "D_kwargs", "G_kwargs"))  # fmt: skip
    pipe = construct_class_by_name(**options["augment_kwargs"]).requires_grad_(False).to(META)
    loss = construct_class_by_name(device=META, G=G, D=D, augment_pipe=pipe, **options["loss_kwargs"])
    real = {
        name: torch.as_tensor(array).to(META).expand(4, *np.shape(array)) for name, array in data[0]._asdict().items()
    }
    return G, D, G_ema, loss, real


@pytest.mark.parametrize("cfg", ["auto", "semantic"])
def test_no_phase_of_a_step_waits(recipes, cfg, monkeypatch):
    G, D, G_ema, loss, real = build(recipes[cfg])
    step = []
    for key, network in (("G", G), ("D", D)):
        for phase in build_phases(key, network, {"class_name": "torch.optim.SGD", "lr": 1}, 4, running=loss.running()):
            monkeypatch.setattr(phase.optimizer, "step", step.append)
            phase.deferred = True  # as with a fused optimizer on a GPU
            assert phase.name in PHASES
            with nothing_waits():
                phase.begin()
                z = torch.randn([4, G.z_dim], device=META)
                loss.accumulate_gradients(phase.name, real, z, real["label"], gain=4)
            monkeypatch.setattr(phase.optimizer, "step", lambda: step.append(1))
            with nothing_waits():
                phase.end()
            assert all(p.grad is None or p.grad.device == META for p in phase.parameters)
            assert any(p.grad is not None for p in phase.parameters), phase.name
    assert len(step) == len(PHASES)
    with nothing_waits():
        update_ema(G_ema, G, 0.5)


@pytest.mark.parametrize("cfg", ["auto", "semantic"])
def test_making_images_does_not_wait(recipes, cfg):
    G = build(recipes[cfg])[0].eval().requires_grad_(False)
    for noise in ("const", "random", "none"):
        with nothing_waits():
            z, c = torch.randn([2, G.z_dim], device=META), torch.zeros([2, G.c_dim], device=META)
            image = G(z, c, truncation_psi=0.5, noise_mode=noise)
            image = image if isinstance(image, torch.Tensor) else image.image
            assert image.device == META


@pytest.mark.parametrize("metric", ["swd", "msssim", "region_leak"])
def test_metrics_leave_no_tensor_on_the_cpu(recipes, metric, monkeypatch):
    """They wait for figures of each batch, by nature: here all figures are 0. Detectors are other people's code."""
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: torch.zeros(x.shape, dtype=x.dtype))
    monkeypatch.setattr(sliced_wasserstein, "cached_arrays", lambda opts, kind, key, make: make())
    G = build(recipes["semantic"])[0].eval().requires_grad_(False)
    data = recipes["semantic"]["training_set_kwargs"]
    opts = MetricOptions(G=G, metric=metric, dataset_kwargs=data, device=META, cache=False, progress=False)
    with torch.no_grad():
        if metric == "swd":
            assert sliced_wasserstein.compute_swd(opts, 4)["mean"] == 0
        elif metric == "msssim":
            assert compute_msssim(opts, 4) == {"": 0, "_real": 0}
        else:
            (batch,) = iterate_latents(opts, 4, "edited")
            assert measure_edits(opts, batch).shape == (4, 3, 3, 4)


def test_augmentation_does_not_wait():
    pipe = AugmentPipe(**augment.augpipe_specs["bgcfnc"]).to(META)
    images, mask = torch.zeros([4, 3, 16, 16], device=META), torch.zeros([4, 2, 16, 16], device=META)
    with nothing_waits():
        images, mask = pipe(images, mask=mask, mirrored_planes=[1, 0])
    assert (images.shape, mask.shape) == ((4, 3, 16, 16), (4, 2, 16, 16))


@pytest.mark.parametrize("group", ["xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "bgc"])
def test_augmentation_on_a_device_gives_the_published_values(group, monkeypatch):
    """There margins are as large as they can get, where a CPU looks at how far a batch reaches."""
    monkeypatch.setattr(augment, "_on_host", lambda x: False)
    data = np.load(shared_file("fixtures", "augment_small.npz"))
    for percentile in ("0.3", "0.8"):
        pipe = AugmentPipe(**augment.augpipe_specs.get(group, {group: 1}))
        augmented = pipe(torch.from_numpy(data["x"]), debug_percentile=float(percentile))
        assert_close(augmented, data[f"{group}@{percentile}"])


def test_the_test_sees_what_waits():
    x = torch.zeros(3, device=META)
    for wait in (lambda: x.sum().item(), lambda: bool(x.any()), lambda: x.tolist(), lambda: x + torch.zeros(3),
                 lambda: torch.tensor([1.0], device=META), lambda: x.new_tensor([1.0]),
                 lambda: torch.zeros(3).to(META)):  # fmt: skip
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), nothing_waits():
            wait()
