"""The loss of StyleGAN2 (Karras et al. 2020) by phases, with hooks for derived losses."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from torch_utils import distributed, training_stats

PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Samples(NamedTuple):
    """Real or generated samples, as input of a discriminator."""

    images: torch.Tensor
    """[N, channels, R, R] in [-1, 1]."""
    extras: dict[str, torch.Tensor]
    """Further tensors by name, such as masks. StyleGAN2's loss has none. A plugin adds its own."""


class Loss:
    """Interface of a loss for the training loop, see `accumulate_gradients`."""

    def accumulate_gradients(
        self, phase: str, real: Mapping[str, torch.Tensor], gen_z: torch.Tensor, gen_c: torch.Tensor, gain: float
    ) -> None:
        """Add the gradients of one phase to the gradients of the parameters.

        Args:
            phase: 'Gmain', 'Greg', 'Dmain', 'Dreg', or 'Gboth' / 'Dboth' for both parts at once.
            real: one batch of the data set on the device: 'image' uint8 [N, C, R, R], 'label' [N, c_dim], and further
                arrays of the data set.
            gen_z, gen_c: latents [N, z_dim] and labels [N, c_dim] to generate from.
            gain: factor of the regularization terms: the interval in steps at which they are computed.
        """
        raise NotImplementedError

    def running(self) -> list[torch.Tensor]:
        """Returns tensors that a step changes besides the parameters. A skipped step leaves them unchanged."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Returns the values that a resume needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state_dict`."""


class StyleGAN2Loss(Loss):
    """Non-saturating logistic loss with lazy R1 and path length regularization.

    A derived loss overrides the methods that differ: `mix_styles`, `generate`, `real_samples`, `discriminate`,
    `generator_terms`, `discriminator_terms`, `r1_terms`, `path_length_inputs`, `generator_step`.

    Args:
        device: device of the networks.
        G, D: networks.
        augment_pipe: augmentation of all inputs of D, or None.
        style_mixing_prob: probability of mixing two latents.
        r1_gamma: weight of R1 on images.
        pl_batch_shrink: the path length uses a batch smaller by this factor.
        pl_decay: rate of the running mean of path lengths.
        pl_weight: weight of the path length term. 0 turns it off.
        precision: 'fp32', or 'fp16' / 'bf16' to run the networks under autocast.
    """

    def __init__(
        self,
        device: torch.device,
        G: torch.nn.Module,
        D: torch.nn.Module,
        augment_pipe: torch.nn.Module | None = None,
        style_mixing_prob: float = 0.9,
        r1_gamma: float = 10,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        pl_weight: float = 2,
        precision: str = "fp32",
    ):
        self.device = device
        self.G = G
        self.D = D
        self.augment_pipe = augment_pipe
        self.style_mixing_prob = style_mixing_prob
        self.r1_gamma = r1_gamma
        self.pl_batch_shrink = pl_batch_shrink
        self.pl_decay = pl_decay
        self.pl_weight = pl_weight
        self.autocast_dtype = PRECISIONS[precision]
        self.pl_mean = torch.zeros([], device=device)

    def running(self) -> list[torch.Tensor]:
        w_avg = getattr(self.G.mapping, "w_avg", None)
        return [self.pl_mean] if w_avg is None else [self.pl_mean, w_avg]

    def state_dict(self) -> dict[str, Any]:
        return {"pl_mean": self.pl_mean.cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pl_mean.copy_(state["pl_mean"])

    def accumulate_gradients(
        self, phase: str, real: Mapping[str, torch.Tensor], gen_z: torch.Tensor, gen_c: torch.Tensor, gain: float
    ) -> None:
        if phase in ("Gmain", "Gboth"):
            self.generator_step(gen_z, gen_c)
        if phase in ("Greg", "Gboth"):
            self.regularize_generator(gen_z, gen_c, gain)
        if phase in ("Dmain", "Dboth"):
            self.discriminator_step(real, gen_z, gen_c)
        if phase in ("Dreg", "Dboth"):
            self.r1_step(real, gain)

    def autocast(self) -> torch.autocast:
        """Returns the context in which the networks run at the chosen precision."""
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def mix_styles(self, z: torch.Tensor, c: torch.Tensor, update_w_avg: bool) -> torch.Tensor:
        """Returns codes for a batch. With probability `style_mixing_prob` each mixes two latents at a random layer."""
        ws = self.G.mapping(z, c, skip_w_avg_update=not update_w_avg)
        if self.style_mixing_prob > 0:
            num_ws = ws.shape[1]
            cutoff = torch.randint(1, num_ws, [], device=ws.device)
            mixed = torch.rand([], device=ws.device) < self.style_mixing_prob
            other = self.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)
            from_other = mixed & (torch.arange(num_ws, device=ws.device) >= cutoff)
            ws = torch.where(from_other[None, :, None], other, ws)
        return ws

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> Samples:
        """Returns generated samples of the training distribution."""
        ws = self.mix_styles(z, c, update_w_avg=True)
        with self.autocast():
            return Samples(self.G.synthesis(ws).float(), {})

    def real_samples(self, real: Mapping[str, torch.Tensor]) -> Samples:
        """Returns the batch of the data set as input of D, before augmentation."""
        return Samples(real["image"].to(torch.float32) / 127.5 - 1, {})

    def discriminate(
        self, samples: Samples, c: torch.Tensor, for_terms: bool = False, full_precision: bool = False
    ) -> torch.Tensor:
        """Returns logits of augmented samples, [N, 1].

        Args:
            samples: samples for D.
            c: labels [N, c_dim].
            for_terms: whether `generator_terms` or `discriminator_terms` follow. A loss whose terms need further
                outputs of D then adds them to the extras.
            full_precision: run D in float32.
        """
        images = samples.images if self.augment_pipe is None else self.augment_pipe(samples.images)
        return self.run_D(images, c, full_precision)

    def run_D(
        self, images: torch.Tensor, c: torch.Tensor, full_precision: bool, **extras: Any
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run D at the chosen precision. Returns its output as float32."""
        if full_precision:
            return self.D(images, c, **extras)
        with self.autocast():
            found = self.D(images, c, **extras)
        return found.float() if isinstance(found, torch.Tensor) else tuple(tensor.float() for tensor in found)

    def discriminator_terms(self, real: Samples) -> torch.Tensor | float:
        """Returns further terms of the discriminator's loss at real samples after `discriminate`, a batch mean."""
        return 0.0

    def generator_terms(self, fake: Samples) -> torch.Tensor | float:
        """Returns further terms of the generator's loss, a batch mean."""
        return 0.0

    def r1_terms(self) -> dict[str, tuple[str, float]]:
        """Returns R1 penalties: {input: (name of the statistic, weight)}. Inputs are 'image' or names of extras."""
        return {"image": ("r1_penalty", self.r1_gamma)}

    def path_length_inputs(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Returns the latents [N, layers, D] with respect to which the path length is computed."""
        return self.mix_styles(z, c, update_w_avg=False)

    def generator_step(self, z: torch.Tensor, c: torch.Tensor) -> None:
        """Maximize the logits of generated samples: softplus(-D(G(z)))."""
        fake = self.generate(z, c)
        logits = self.discriminate(fake, c, for_terms=True)
        training_stats.report("Loss/scores/fake", logits)
        training_stats.report("Loss/signs/fake", logits.sign())
        loss = torch.nn.functional.softplus(-logits)
        training_stats.report("Loss/G/loss", loss)
        (loss.mean() + self.generator_terms(fake)).backward()

    def regularize_generator(self, z: torch.Tensor, c: torch.Tensor, gain: float) -> None:
        """Regularize the generator, here by the path length."""
        if self.pl_weight != 0:
            self.path_length_step(z, c, gain)

    def path_length_step(self, z: torch.Tensor, c: torch.Tensor, gain: float) -> None:
        """Keep the length of |J^T y| near its running mean (Karras et al. 2020, equation 4)."""
        count = max(z.shape[0] // self.pl_batch_shrink, 1)
        ws = self.path_length_inputs(z[:count], c[:count]).requires_grad_()  # the mapping may be frozen
        with self.autocast():
            images = self.G.synthesis(ws).float()
        noise = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
        (grads,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        lengths = grads.float().square().sum(dim=2).mean(dim=1).sqrt()
        average = distributed.all_reduce(lengths.mean().detach()) / distributed.get_world_size()
        pl_mean = self.pl_mean.lerp(average, self.pl_decay)
        self.pl_mean.copy_(pl_mean)
        penalty = (lengths - pl_mean).square()
        training_stats.report("Loss/pl_penalty", penalty)
        loss = penalty * self.pl_weight
        training_stats.report("Loss/G/reg", loss)
        (loss.mean() * gain).backward()

    def discriminator_step(self, real: Mapping[str, torch.Tensor], z: torch.Tensor, c: torch.Tensor) -> None:
        """Train D to separate generated from real samples: softplus(D(G(z))) + softplus(-D(x))."""
        with torch.no_grad():
            fake = self.generate(z, c)
        fake_logits = self.discriminate(fake, c)
        training_stats.report("Loss/scores/fake", fake_logits)
        training_stats.report("Loss/signs/fake", fake_logits.sign())
        fake_loss = torch.nn.functional.softplus(fake_logits)
        fake_loss.mean().backward()
        samples = self.real_samples(real)
        real_logits = self.discriminate(samples, real["label"], for_terms=True)
        training_stats.report("Loss/scores/real", real_logits)
        training_stats.report("Loss/signs/real", real_logits.sign())
        real_loss = torch.nn.functional.softplus(-real_logits)
        (real_loss.mean() + self.discriminator_terms(samples)).backward()
        training_stats.report("Loss/D/loss", fake_loss.mean().detach() + real_loss.detach())

    def r1_step(self, real: Mapping[str, torch.Tensor], gain: float) -> None:
        """Penalize gradients of D at real samples *before* augmentation (Mescheder et al. 2018, R1)."""
        terms = {name: term for name, term in self.r1_terms().items() if term[1] != 0}
        if not terms:
            return
        samples = self.real_samples(real)
        samples = Samples(samples.images.requires_grad_("image" in terms), samples.extras)
        inputs = [samples.images if name == "image" else samples.extras[name].requires_grad_() for name in terms]
        logits = self.discriminate(samples, real["label"], full_precision=True)
        grads = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
        loss = torch.zeros_like(logits)
        for (statistic, gamma), grad in zip(terms.values(), grads, strict=True):
            penalty = grad.square().sum(dim=[1, 2, 3])
            training_stats.report(f"Loss/{statistic}", penalty)
            loss = loss + (penalty * (gamma / 2)).unsqueeze(1)
        training_stats.report("Loss/D/reg", loss)
        (loss.mean() * gain).backward()
