"""Trains encoders pass by pass: first by regression, then by gradients of the loss."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from tqdm import tqdm

from dnnlib import UserError
from semantic.editing.codes import mix_regions
from semantic.encoder import Encoder, has_head, new_encoder
from semantic.inversion.distance import Distance, Targets, psnr
from semantic.inversion.encoder_loss import EncoderLoss
from semantic.inversion.parse import random_codes
from semantic.inversion.photos import PhotoFile, crop_mask
from semantic.inversion.regression import fit_pass
from semantic.inversion.space import code_space
from semantic.placement import Placement

CHUNK = 64
"""Number of images that a network computes at once without training."""
JUDGED = 64
"""Number of generated pairs that only judge the encoder."""
SHARE_OF_REAL = 0.5
"""Share of real images in a batch, if there are real images."""
JUDGE_EVERY = 50
HEAD_KIMG = 8


@dataclass(frozen=True, kw_only=True)
class Training:
    """Options of the training of an encoder.

    Attributes:
        pairs: generated pairs that the passes are fitted to.
        kimg: thousands of images for the training by gradients, all passes together.
        batch: images per step.
        learning_rate: first learning rate of Adam.
        bf16: compute in bfloat16 where precision allows.
        num_passes, rank, context: sizes of the encoder, see `Encoder`.
        seed: seed of all random numbers.
    """

    pairs: int = 8000
    kimg: float = 10
    batch: int = 16
    learning_rate: float = 1e-3
    bf16: bool = False
    num_passes: int = 3
    rank: int = 48
    context: int = 48
    seed: int = 0


@dataclass
class Examples:
    """Images with masks on the CPU, and their codes if the codes are known.

    Attributes:
        images: float16 [M, 3, R, R].
        masks: class indices uint8 [M, R, R].
        codes: float16 [M, num_ws, D]. Real images have the average code.
        known: bool [M].
    """

    images: torch.Tensor
    masks: torch.Tensor
    codes: torch.Tensor
    known: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


class Trainer:
    """Trains an encoder. `encoder` always holds the current state.

    Args:
        networks: G_ema and D, as from ``legacy.load_network``.
        device: device of the computation.
        training: options of the training.
        real: photos without known codes.
        say: function that prints a line for the user.
        hide_progress: True hides bars, None shows them on terminals.

    Raises:
        UserError: the network has no regions, or its images are not in colour.
    """

    def __init__(
        self,
        networks: Mapping[str, Any],
        device: torch.device,
        training: Training,
        real: Sequence[PhotoFile] = (),
        say: Callable[[str], None] = print,
        hide_progress: bool | None = None,
    ):
        self.device, self.training, self.real, self.say, self.hide_progress = device, training, real, say, hide_progress
        options = {name: getattr(training, name) for name in ("num_passes", "rank", "context")}
        self.encoder: Encoder = new_encoder(networks, **options).eval().requires_grad_(False).to(device)
        self.learns_to_parse = not has_head(networks)
        self.G = networks["G_ema"].eval().requires_grad_(False).to(device)
        self.loss = EncoderLoss(space=code_space(self.G, device), distance=Distance())
        self.generator = torch.Generator().manual_seed(training.seed)
        self.passes_done = 0

    def run(self) -> Encoder:
        """Train the encoder. Returns the trained encoder."""
        examples = self.generated(self.training.pairs + JUDGED)
        if self.learns_to_parse:
            self.learn_to_parse(examples)
        examples = self.with_real(examples)
        described = self.bar(self.describe(examples), "Looking at images", len(examples))
        ws = self.encoder.w_avg.cpu().expand(examples.codes.shape).clone()
        inputs = described
        for number, step in enumerate(self.encoder.passes):
            if number:
                inputs = described - self.bar(self.rendered(ws), "Rendering codes", len(examples))
            fitted = examples.known & (torch.arange(len(examples)) >= JUDGED)
            wanted = examples.codes[fitted].float() - ws[fitted]
            fit_pass(step, inputs[fitted].to(self.device), wanted.to(self.device))
            self.passes_done = number + 1
            self.descend(step, examples, inputs, ws, f"Pass {number + 1} of {len(self.encoder.passes)}")
            for part in torch.arange(len(ws)).split(CHUNK):
                ws[part] += step(inputs[part].to(self.device).float()).cpu()
            self.say(f"Pass {number + 1}: {self.judge(examples, ws):.2f} dB on held-out generated images")
        return self.encoder

    @torch.no_grad()
    def generated(self, count: int) -> Examples:
        """Returns generated images with masks and codes. Half of them take regions from another image."""
        G, regions = self.G, self.G.regions
        found = []
        bar = tqdm(total=count, desc="Generating pairs", unit="img", leave=False, disable=self.hide_progress)
        for start in range(0, count, CHUNK):
            number = min(CHUNK, count - start)
            psi = 0.5 + 0.5 * torch.rand(number, 1, 1, generator=self.generator).to(self.device)
            ws, donors = (random_codes(G, number, self.generator, self.device, psi) for _ in range(2))
            for i in range(1, number, 2):
                chosen = torch.rand(len(regions), generator=self.generator) < 0.5
                which = chosen.nonzero().flatten().tolist()
                ws[i : i + 1] = mix_regions(ws[i : i + 1], donors[i : i + 1], regions, which)
            with self.precision():
                out = G.synthesis(ws, noise_mode="const", return_mask=True)
            image = out.image.float().clamp(-1, 1).half()
            found.append([x.cpu() for x in (image, out.mask.argmax(dim=1).byte(), ws.half())])
            bar.update(number)
        bar.close()
        images, masks, codes = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Examples(images, masks, codes, torch.ones(len(images), dtype=torch.bool))

    @torch.no_grad()
    def with_real(self, examples: Examples) -> Examples:
        """Returns the examples, followed by the real images."""
        G, images, masks = self.G, [], []
        for file in tqdm(self.real, desc="Reading images", unit="img", leave=False, disable=self.hide_progress):
            try:
                photo = file.read()
                size = (photo.shape[2], photo.shape[1])
                given = file.read_mask(G.regions, size)
            except UserError as error:
                self.say(f"Skipped: {error.message}")
                continue
            placement = Placement.centered(file.where, size, G.img_resolution)
            image = placement.crop(photo.to(self.device))
            if given is None:
                mask = self.encoder.scores(image[None]).argmax(dim=1)[0]
            else:
                mask = crop_mask(given, placement, len(G.regions))
            images.append(image.half().cpu())
            masks.append(mask.byte().cpu())
        if not images:
            return examples
        codes = self.encoder.w_avg.half().cpu().expand(len(images), *examples.codes.shape[1:])
        return Examples(
            torch.cat([examples.images, torch.stack(images)]),
            torch.cat([examples.masks, torch.stack(masks)]),
            torch.cat([examples.codes, codes]),
            torch.cat([examples.known, torch.zeros(len(images), dtype=torch.bool)]),
        )

    def learn_to_parse(self, examples: Examples) -> None:
        """Train the encoder's own head to find regions. A discriminator without a head cannot lend one."""
        learned = [*self.encoder.image.parameters(), *self.encoder.segmentation.parameters()]
        for parameter in learned:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(learned, lr=2e-3)
        steps = math.ceil(min(HEAD_KIMG * 1000, 4 * len(examples)) / self.training.batch)
        for _ in tqdm(range(steps), desc="Learning to find regions", leave=False, disable=self.hide_progress):
            chosen = torch.randint(JUDGED, len(examples), [self.training.batch], generator=self.generator)
            images, masks = (x[chosen].to(self.device) for x in (examples.images, examples.masks))
            with self.precision():
                scores = self.encoder.scores(images.float())
            optimizer.zero_grad()
            F.cross_entropy(scores.float(), masks.long()).backward()
            optimizer.step()
        for parameter in learned:
            parameter.requires_grad_(False)

    def descend(
        self, step: torch.nn.Module, examples: Examples, inputs: torch.Tensor, ws: torch.Tensor, text: str
    ) -> None:
        """Train a pass by gradients of the loss. The pass keeps its best state on the held-out examples.

        Args:
            step: the pass.
            examples: the training examples.
            inputs: input descriptions of the pass, [M, K + 1, F].
            ws: codes to correct, [M, num_ws, D].
            text: name of the progress bar.
        """
        training = self.training
        steps = int(training.kimg * 1000 / len(self.encoder.passes) / training.batch)
        learned = list(step.parameters())
        optimizer = torch.optim.Adam(learned, lr=training.learning_rate, betas=(0.9, 0.99))
        best, state = -1.0, None
        pool = torch.arange(JUDGED, len(examples))
        real = (~examples.known).nonzero().flatten()
        bar = tqdm(range(steps), desc=text, unit="step", leave=False, disable=self.hide_progress)
        try:
            for number in bar:
                if number % JUDGE_EVERY == 0:
                    quality = self.judge(examples, self.added(step, inputs, ws))
                    if quality > best:
                        best, state = quality, {name: x.clone() for name, x in step.state_dict().items()}
                    bar.set_postfix(dB=f"{quality:.2f}")
                chosen = pool[torch.randint(len(pool), [training.batch], generator=self.generator)]
                if len(real):
                    count = int(training.batch * SHARE_OF_REAL)
                    chosen[:count] = real[torch.randint(len(real), [count], generator=self.generator)]
                for parameter in learned:
                    parameter.requires_grad_(True)
                loss = self.batch_loss(step, examples, inputs, ws, chosen)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                for parameter in learned:
                    parameter.requires_grad_(False)
                for group in optimizer.param_groups:
                    group["lr"] = training.learning_rate * 0.5 * (1 + math.cos(math.pi * number / steps))
                optimizer.step()
            if steps and self.judge(examples, self.added(step, inputs, ws)) > best:
                state = None
        finally:
            step.requires_grad_(False)
            if state is not None:
                step.load_state_dict(state)

    def batch_loss(
        self, step: torch.nn.Module, examples: Examples, inputs: torch.Tensor, ws: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """Returns the mean loss of some examples after a pass."""
        images, masks, codes, known, described, before = (
            x[chosen].to(self.device)
            for x in (examples.images, examples.masks, examples.codes, examples.known, inputs, ws)
        )
        after = before + step(described.float())
        with self.precision():
            return self.loss(self.G, after, Targets(images.float(), masks.long()), known, codes.float()).mean()

    @torch.no_grad()
    def added(self, step: torch.nn.Module, inputs: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
        """Returns the codes of the held-out examples after a pass."""
        return ws[:JUDGED] + step(inputs[:JUDGED].to(self.device).float()).cpu()

    @torch.no_grad()
    def judge(self, examples: Examples, ws: torch.Tensor) -> float:
        """Returns the mean PSNR of the held-out examples, in dB."""
        found = []
        for part in torch.arange(JUDGED).split(CHUNK):
            with self.precision():
                out = self.G.synthesis(ws[part].to(self.device), noise_mode="const", return_mask=True)
            found.append(psnr(out.image.float(), examples.images[part].to(self.device).float()))
        return float(torch.cat(found).mean())

    @torch.no_grad()
    def describe(self, examples: Examples) -> Iterator[torch.Tensor]:
        """Yields the descriptions of the examples, chunk by chunk."""
        for part in torch.arange(len(examples)).split(CHUNK):
            with self.precision():
                images, masks = (x[part].to(self.device) for x in (examples.images, examples.masks))
                yield self.encoder.describe(images.float(), masks)

    @torch.no_grad()
    def rendered(self, ws: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the descriptions of the images that codes render, chunk by chunk."""
        for part in ws.split(CHUNK):
            with self.precision():
                yield self.encoder.rendered(self.G, part.to(self.device))

    def bar(self, parts: Iterator[torch.Tensor], text: str, total: int) -> torch.Tensor:
        """Returns all parts as one tensor on the CPU, under a progress bar."""
        found = []
        with tqdm(total=total, desc=text, unit="img", leave=False, disable=self.hide_progress) as bar:
            for part in parts:
                found.append(part.float().cpu())
                bar.update(len(part))
        return torch.cat(found)

    def precision(self) -> contextlib.AbstractContextManager:
        """Returns a context for bfloat16, if the training uses bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.bf16)
