"""The phases of StyleGAN2's loss against plain formulas, on networks small enough to differentiate by hand."""

import math

import pytest
import torch

from torch_utils import training_stats
from training.augment_control import SIGNS, AugmentController
from training.loss import StyleGAN2Loss

LAYERS, WIDTH = 3, 4


class ToyG(torch.nn.Module):
    """Codes are z once a layer, the image is their sum over layers times `scale`."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.updates = []

    def mapping(self, z, c, skip_w_avg_update=False):
        self.updates.append(not skip_w_avg_update)
        return z.unsqueeze(1).repeat(1, LAYERS, 1)

    def synthesis(self, ws):
        self.ws = ws
        return (self.scale * ws.sum(dim=1)).view(-1, 1, 2, 2)


class ToyD(torch.nn.Module):
    """The logit is `slope` times the sum of squared pixels plus the label."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, img, c):
        return self.slope * img.square().sum(dim=[1, 2, 3]).unsqueeze(1) + c


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    real = {"image": torch.randint(256, [4, 1, 2, 2], generator=random).to(torch.uint8)}
    real["label"] = torch.randn([4, 1], generator=random)
    return real, torch.randn([4, WIDTH], generator=random), torch.randn([4, 1], generator=random)


def toy_loss(**kwargs):
    return StyleGAN2Loss(torch.device("cpu"), ToyG(), ToyD(), **{"style_mixing_prob": 0, **kwargs})


def slope_of(function, at):
    """Derivative by central differences, in double precision."""
    return (function(at + 1e-5) - function(at - 1e-5)) / 2e-5


def softplus(x):
    return torch.log1p(torch.exp(torch.as_tensor(x, dtype=torch.float64)))


def as_double(t):
    return t.detach().double()


def pixels(real):
    return as_double(real["image"]) / 127.5 - 1


def energy(images):
    return images.square().sum(dim=[1, 2, 3])


def reported(regex):
    collector = training_stats.Collector(regex)

    def figures():
        collector.update()
        return collector

    return figures


def test_generator_raises_the_logits_of_its_samples(batch):
    real, z, c = batch
    loss, figures = toy_loss(), reported("Loss/.*")
    loss.accumulate_gradients("Gmain", real, z, c, gain=1)

    def formula(scale):
        images = (scale * LAYERS * as_double(z)).view(-1, 1, 2, 2)
        return softplus(-(0.3 * energy(images) + as_double(c)[:, 0])).mean().item()

    assert loss.G.scale.grad.item() == pytest.approx(slope_of(formula, 1.5), rel=1e-4)
    assert figures().mean("Loss/G/loss") == pytest.approx(formula(1.5), rel=1e-5)
    logits = 0.3 * energy(loss.G.synthesis(loss.G.mapping(z, c))).detach() + c[:, 0]
    assert figures().mean("Loss/scores/fake") == pytest.approx(logits.mean().item(), rel=1e-5)
    assert figures().num("Loss/signs/fake") == 4


def test_discriminator_tells_real_from_generated(batch):
    real, z, c = batch
    loss, figures = toy_loss(), reported("Loss/.*")
    loss.accumulate_gradients("Dmain", real, z, c, gain=1)
    fakes = (1.5 * LAYERS * as_double(z)).view(-1, 1, 2, 2)

    def formula(slope):
        fake = slope * energy(fakes) + as_double(c)[:, 0]
        true = slope * energy(pixels(real)) + as_double(real["label"])[:, 0]
        return (softplus(fake).mean() + softplus(-true).mean()).item()

    assert loss.D.slope.grad.item() == pytest.approx(slope_of(formula, 0.3), rel=1e-4)
    assert loss.G.scale.grad is None
    assert figures().mean("Loss/D/loss") == pytest.approx(formula(0.3), rel=1e-5)
    true = 0.3 * energy(pixels(real)) + as_double(real["label"])[:, 0]
    assert figures().mean("Loss/signs/real") == pytest.approx(true.sign().mean().item())
    assert figures().num("Loss/scores/real") == 4


@pytest.mark.parametrize("gain", [1, 16])
def test_r1_penalizes_gradients_at_real_samples(batch, gain):
    real, z, c = batch
    loss, figures = toy_loss(r1_gamma=5), reported("Loss/.*")
    loss.accumulate_gradients("Dreg", real, z, c, gain=gain)
    squares = (2 * 0.3 * pixels(real)).square().sum(dim=[1, 2, 3])  # |d logit / d image|^2

    def formula(slope):
        return (gain * 5 / 2 * squares.mean() * (slope / 0.3) ** 2).item()

    assert loss.D.slope.grad.item() == pytest.approx(slope_of(formula, 0.3), rel=1e-4)
    assert figures().mean("Loss/r1_penalty") == pytest.approx(squares.mean().item(), rel=1e-5)
    assert figures().mean("Loss/D/reg") == pytest.approx(formula(0.3) / gain, rel=1e-5)
    assert loss.G.scale.grad is None


def test_r1_is_taken_before_augmentation(batch):
    """Where the pipe doubles images, the logit is 4 times as steep in the image that went in."""
    real, z, c = batch
    figures = reported("Loss/r1_penalty")
    toy_loss(augment_pipe=lambda images: 2 * images).accumulate_gradients("Dreg", real, z, c, gain=1)
    expected = (2 * 0.3 * 4 * pixels(real)).square().sum(dim=[1, 2, 3]).mean().item()
    assert figures().mean("Loss/r1_penalty") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shrink", [1, 2])
def test_path_length_nears_its_running_mean(batch, monkeypatch, shrink):
    real, z, c = batch
    noise = torch.randn(4 // shrink, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr("torch.randn_like", lambda x: noise)
    loss, figures = toy_loss(pl_weight=2, pl_batch_shrink=shrink, pl_decay=0.25), reported("Loss/.*")
    loss.pl_mean.fill_(1.2)
    loss.accumulate_gradients("Greg", real, z, c, gain=4)
    # Every layer has the gradient scale * noise / sqrt(pixels): so long is their root mean square over layers.
    lengths = 1.5 * as_double(noise).square().sum(dim=[1, 2, 3]).sqrt() / math.sqrt(4)
    mean = 1.2 + 0.25 * (lengths.mean().item() - 1.2)

    def formula(scale):
        return (4 * 2 * (lengths * scale / 1.5 - mean).square().mean()).item()

    assert loss.pl_mean.item() == pytest.approx(mean, rel=1e-5)
    assert loss.G.scale.grad.item() == pytest.approx(slope_of(formula, 1.5), rel=1e-4)
    assert figures().mean("Loss/pl_penalty") == pytest.approx(formula(1.5) / 8, rel=1e-5)
    assert figures().mean("Loss/G/reg") == pytest.approx(formula(1.5) / 4, rel=1e-5)
    assert not any(loss.G.updates)  # w_avg is the main phases' business


def test_both_phases_at_once_add_up(batch):
    real, z, c = batch
    for both, parts in (("Gboth", ("Gmain", "Greg")), ("Dboth", ("Dmain", "Dreg"))):
        grads = []
        for phases in ((both,), parts):
            torch.manual_seed(0)
            loss = toy_loss()
            for phase in phases:
                loss.accumulate_gradients(phase, real, z, c, gain=3)
            grads.append(loss.G.scale.grad if both[0] == "G" else loss.D.slope.grad)
        assert torch.allclose(*grads)


@pytest.mark.parametrize(("phase", "options"), [("Greg", {"pl_weight": 0}), ("Dreg", {"r1_gamma": 0})])
def test_terms_of_weight_zero_are_left_out(batch, phase, options):
    loss, figures = toy_loss(**options), reported("Loss/.*")
    loss.accumulate_gradients(phase, *batch, gain=4)
    assert loss.G.scale.grad is None
    assert loss.D.slope.grad is None
    assert figures().names() == []


def test_style_mixing_takes_the_last_layers_from_another_latent(batch):
    _, z, c = batch
    loss = toy_loss(style_mixing_prob=0.5)
    cutoffs = []
    for seed in range(200):
        torch.manual_seed(seed)
        ws = loss.mix_styles(z, c, update_w_avg=True)
        own = [torch.equal(ws[:, i], z) for i in range(LAYERS)]
        assert own == sorted(own, reverse=True)
        cutoffs.append(sum(own))
    assert set(cutoffs) == {1, 2, LAYERS}
    assert 70 < cutoffs.count(LAYERS) < 130
    assert loss.G.updates == [True, False] * 200


def test_the_state_is_the_mean_path_length(batch):
    loss, other = toy_loss(), toy_loss()
    loss.accumulate_gradients("Greg", *batch, gain=4)
    other.load_state_dict(loss.state_dict())
    assert other.pl_mean == loss.pl_mean != 0


class Pipe(torch.nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.register_buffer("p", torch.tensor(p))


def control(pipe, **kwargs):
    options = {"target": 0.6, "interval": 4, "batch_size": 8, "speed_kimg": 0.5, "device": torch.device("cpu")}
    return AugmentController(pipe, **{**options, **kwargs})


@pytest.mark.parametrize(("signs", "direction"), [([1.0, 1.0, 1.0, -1.0], -1), ([1.0, 1.0, 1.0, 1.0], 1)])
def test_augmentation_follows_the_discriminators_certainty(signs, direction):
    pipe = Pipe()
    controller = control(pipe)
    for step in range(1, 5):
        training_stats.report(SIGNS, torch.tensor(signs))
        assert controller.p == 0.5
        controller.step(step)
    # From 0 to 1 in 500 images: 4 steps of 8 images move by 32 / 500.
    assert controller.p == pytest.approx(0.5 + direction * 32 / 500)


def test_augmentation_stays_where_nothing_is_known_and_never_gets_negative():
    pipe = Pipe(0.01)
    controller = control(pipe)
    controller.step(0)
    assert controller.p == pytest.approx(0.01)
    training_stats.report(SIGNS, torch.tensor([-1.0]))
    controller.step(4)
    assert controller.p == 0


def test_signs_from_before_the_last_adjustment_do_not_count():
    training_stats.report(SIGNS, torch.full([100], -1.0))
    controller = control(Pipe())
    training_stats.report(SIGNS, torch.tensor([1.0]))
    controller.step(0)
    first = controller.p
    training_stats.report(SIGNS, torch.tensor([-1.0]))
    controller.step(4)
    assert first > 0.5
    assert controller.p == pytest.approx(0.5)


def test_a_fixed_probability_stays():
    controller = control(Pipe(), target=None)
    training_stats.report(SIGNS, torch.ones(4))
    controller.step(0)
    assert controller.p == 0.5


def test_a_continued_controller_knows_the_signs_of_the_unfinished_interval():
    results = []
    for interrupted in (False, True):
        controller = control(Pipe())
        training_stats.report(SIGNS, torch.tensor([1.0, 1.0, 1.0]))
        controller.step(1)
        if interrupted:
            state = controller.state_dict()
            assert state["sums"][0][SIGNS]["cpu"][:2].tolist() == [3, 3]
            controller = control(Pipe())
            controller.load_state_dict(state)
        training_stats.report(SIGNS, torch.tensor([-1.0]))
        controller.step(4)
        results.append(controller.p)
    assert results[0] == results[1] < 0.5  # the mean 0.5 of all four is under the target
