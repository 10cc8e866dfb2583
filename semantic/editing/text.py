"""Edits by a text, with a CLIP of open_clip (the extra `[text]`)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional as F
from tqdm import tqdm

from dnnlib import UserError
from semantic.editing.codes import check_parts, part_slots
from semantic.editing.edits import Edit
from semantic.editing.finding import MAPPED_SAMPLES, sample_codes
from semantic.editing.state import EditState

MODEL, WEIGHTS = "ViT-B-32", "laion2b_s34b_b79k"
"""The CLIP that open_clip fetches if the user names no other."""
STEPS, RATE = 100, 0.1
VIEWS, LEAST_VIEW = 4, 0.7
"""Number of crops that each step shows to CLIP. Smallest side of a crop, as a share of the image's side."""
NEARNESS = 0.02
"""Weight of the mean square of the moves, in deviations of the codes."""
RIDGE = 1e-3
"""Share of the mean variance of codes that every direction has at least."""


@dataclass(frozen=True)
class Clip:
    """A network that compares images and texts (CLIP, Radford et al. 2021)."""

    model: torch.nn.Module
    tokenize: Callable[[list[str]], torch.Tensor]
    side: int
    """Side of its input in pixels."""
    mean: Sequence[float]
    std: Sequence[float]
    """Mean and deviation of its training images' colours, from 0 to 1."""
    name: str = MODEL
    """Its model in open_clip."""
    weights: str = WEIGHTS
    """File or name of its weights."""

    @torch.no_grad()
    def text(self, text: str) -> torch.Tensor:
        """Returns the feature of a text, [1, F], of length 1."""
        device = next(self.model.parameters()).device
        return F.normalize(self.model.encode_text(self.tokenize([text]).to(device)).float(), dim=1)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features of images [N, 3, H, W] in [-1, 1]: [N, F], of length 1. They have gradients."""
        shrunk = self.side < images.shape[-1]
        x = F.interpolate(images, [self.side] * 2, mode="bicubic", antialias=shrunk, align_corners=False)
        mean, std = (x.new_tensor(list(values)).view(1, -1, 1, 1) for values in (self.mean, self.std))
        x = ((x.clamp(-1, 1) + 1) / 2 - mean) / std
        return F.normalize(self.model.encode_image(x).float(), dim=1)


def open_clip_model(name: str, weights: str, device: torch.device) -> Clip:
    """Returns a CLIP of open_clip.

    Args:
        name: model of open_clip, such as 'ViT-B-32'.
        weights: file of weights, or open_clip's name of weights. It fetches named weights.
        device: device of the computation.

    Raises:
        UserError: open_clip is not installed, or it cannot open the model.
    """
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # of torch: packages that do not fit each other
        raise UserError(
            f"--text needs open_clip, which cannot be imported ({_first_line(error)}). Install it with "
            "`pip install 'semantic-stylegan[text]'`."
        ) from error
    try:
        model = open_clip.create_model(name, pretrained=weights, device=device).eval().requires_grad_(False)
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, torch and the hub have no common class of errors
        raise UserError(
            f"open_clip cannot open the model {name} with the weights {weights}: {_first_line(error)}. "
            "Name a model with --clip, and a file of its weights with --clip-weights."
        ) from error
    eye = model.visual
    side = eye.image_size if isinstance(eye.image_size, int) else eye.image_size[0]
    return Clip(model, tokenize, side, eye.image_mean, eye.image_std, name, weights)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


@dataclass(frozen=True, eq=False)
class TextEdit:
    """Moves the codes of regions until CLIP finds that the image fits a text (StyleCLIP, Patashnik et al. 2021).

    Equal states have equal results. The results are kept, so each search runs once.
    """

    regions: tuple[int, ...]
    part: str
    """'shape', 'texture' or 'both'."""
    text: str
    clip: Clip
    seed: int = 0
    num_steps: int = STEPS
    amount: float = 1.0
    """Share of the step that the search finds."""
    step: torch.Tensor | None = None
    """Step of the codes for all states, shaped as their codes, or None: the edit searches a step for each state."""
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    """Steps that were found, by state."""

    @property
    def region(self) -> int:
        """Index of the first region that it changes."""
        return self.regions[0]

    def apply(self, G: torch.nn.Module, state: EditState) -> EditState:
        if self.amount == 0:
            return state
        ws = state.ws + self.amount * self._step(G, state)
        for region in self.regions:
            state = state.changed(region, ws=ws)
        return state

    def scaled(self, amount: float) -> "TextEdit":
        return replace(self, amount=self.amount * amount)

    def option(self, G: torch.nn.Module) -> str:
        names = ",".join(G.regions.names[region] for region in self.regions)
        settings = (
            ("text-steps", self.num_steps, STEPS),
            ("text-seed", self.seed, 0),
            ("clip", self.clip.name, MODEL),
            ("clip-weights", self.clip.weights, WEIGHTS),
        )
        others = "".join(f" --{option}={value}" for option, value, usual in settings if value != usual)
        return f"--text={self.text} --regions={names} --part={self.part}{others}"

    def settled(self, G: torch.nn.Module, state: EditState) -> "TextEdit":
        """Returns the edit with the step for this state, for all states."""
        return replace(self, step=self._step(G, state))

    def _step(self, G: torch.nn.Module, state: EditState) -> torch.Tensor:
        if self.step is not None:
            return self.step
        parts = (state.ws, state.keep, state.frames)
        name = hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest()
        if name not in self.kept:
            search = (self.regions, self.part, self.text, self.clip, self.seed, self.num_steps)
            self.kept[name] = find_codes(G, state, *search) - state.ws
        return self.kept[name]


def settle_texts(G: torch.nn.Module, state: EditState, edits: Sequence[Edit]) -> list[Edit]:
    """Returns edits whose texts cause no more searches.

    Each text has the step for the state after all edits before it. Sheets and videos scale this step, since a search in
    each of their states takes long and ends elsewhere.

    Args:
        G: a generator with regions.
        state: an unedited image.
        edits: the edits of the image, in order.
    """
    found = []
    for edit in edits:
        found.append(edit.settled(G, state) if isinstance(edit, TextEdit) else edit)
        state = found[-1].apply(G, state)
    return found


@torch.enable_grad()
def find_codes(
    G: torch.nn.Module,
    state: EditState,
    regions: Sequence[int],
    part: str,
    text: str,
    clip: Clip,
    seed: int = 0,
    num_steps: int = STEPS,
    report: Callable[[float], object] | None = None,
    hide_progress: bool | None = None,
) -> torch.Tensor:
    """Returns codes of a state after a search for a text: float64, shaped as the state's. Other regions' codes stay.

    The search moves each code u of a region in units of its distribution: w + L u, where L Lᵀ is the covariance of
    mapped codes. Adam lowers the mean distance 1 - cos of random crops from the text, and `NEARNESS` times the mean of
    u². The crops keep the search from patterns that only CLIP sees.

    Args:
        regions: indices of the regions.
        part: 'shape', 'texture' or 'both'.
        seed: of the crops.
        num_steps: steps of the search.
        report: called with the distance after each step.
        hide_progress: True hides the bar, None shows it on terminals.

    Raises:
        UserError: there is no such part.
    """
    layer_slots, device = G.synthesis.local.layer_slots, G.synthesis.grid.device
    groups = [
        part_slots(state.ws, G.regions, region, layer_slots)[role] for region in regions for role in check_parts(part)
    ]
    factor, wanted = code_factor(G).float().to(device), clip.text(text)
    random = torch.Generator().manual_seed(seed)
    inputs = state.inputs(G.synthesis.grid)
    moves = torch.zeros(len(state), len(groups), G.w_dim, device=device, requires_grad=True)
    adam = torch.optim.Adam([moves], lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, num_steps)
    with tqdm(total=num_steps, desc=text, unit="step", leave=False, dynamic_ncols=True, disable=hide_progress) as bar:
        for _ in range(num_steps):
            ws = moved(inputs["ws"], groups, moves @ factor.mT)
            images = G.synthesis(**inputs | {"ws": ws}, noise_mode="const")
            likeness = clip.images(random_views(images.expand(-1, 3, -1, -1), random)) @ wanted.mT
            distance = 1 - likeness.mean()
            adam.zero_grad()
            (distance + NEARNESS * moves.square().mean()).backward()
            adam.step()
            schedule.step()
            reached = float(distance.detach())
            if report is not None:
                report(reached)
            bar.set_postfix(distance=f"{reached:.3f}")
            bar.update()
    return moved(state.ws, groups, (moves.detach() @ factor.mT).to(state.ws))


def moved(ws: torch.Tensor, groups: Sequence[Sequence[int]], steps: torch.Tensor) -> torch.Tensor:
    """Returns codes [N, M, D] with a step of `steps` [N, len(groups), D] added to all slots of each group."""
    whole = torch.zeros_like(ws)
    for i, slots in enumerate(groups):
        whole[:, slots] = steps[:, i : i + 1]
    return ws + whole


def code_factor(G: torch.nn.Module) -> torch.Tensor:
    """Returns L, float64 [D, D] on the CPU: a root of the covariance L Lᵀ of mapped codes."""
    with torch.no_grad():
        spread = torch.cov(sample_codes(G, MAPPED_SAMPLES, seed=1)[0].double().cpu().mT)
    values, vectors = torch.linalg.eigh(spread)
    return vectors * values.clamp(min=RIDGE * float(values.mean())).sqrt()


def random_views(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Returns `VIEWS` square crops of random size and place of each image [N, C, R, R], at the image's size."""
    count = VIEWS * len(images)
    side = LEAST_VIEW + (1 - LEAST_VIEW) * torch.rand(count, 1, generator=random)
    middle = (1 - side) * (2 * torch.rand(count, 2, generator=random) - 1)
    frames = torch.zeros(count, 2, 3)
    frames[:, 0, 0], frames[:, 1, 1], frames[:, :, 2] = side[:, 0], side[:, 0], middle
    views = images.repeat_interleave(VIEWS, dim=0)
    grid = F.affine_grid(frames.to(views), list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
