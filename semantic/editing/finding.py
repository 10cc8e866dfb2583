"""Finds directions of one region: by its style affines, by principal components, or by a score."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dnnlib import UserError
from semantic.editing.codes import check_parts, part_slots
from semantic.editing.directions import ROLES, Direction
from semantic.editing.scores import Score
from semantic.masks import mask_areas

MAPPED_SAMPLES = 10_000
RIDGE = 0.02
"""Share of the mean variance that is added to every variance before a covariance is inverted."""
VARIANTS = 4
"""Codes of a region that each image is rendered with."""
FEWEST = 50
"""Samples in which a score must be measurable."""
Progress = Callable[[int], object]


class NoDirection(UserError):
    """A score has no direction in the codes of a region."""


def roles_of(part: str) -> tuple[str, ...]:
    """Returns the codes of a part, see `check_parts`. The part 'whole' also has the region's own base codes."""
    return ROLES if part == "whole" else check_parts(part)


def sample_codes(G: torch.nn.Module, count: int, seed: int, sets: int = 1) -> torch.Tensor:
    """Returns codes of random z and random classes: [sets, count, D]. Sample i has the same class in all sets.

    All slots of a mapped code are equal, so each sample has one code.
    """
    random = torch.Generator().manual_seed(seed)
    labels = torch.zeros(count, G.c_dim)
    if G.c_dim:
        labels[range(count), torch.randint(G.c_dim, [count], generator=random)] = 1
    device = G.mapping.w_avg.device
    found = []
    for _ in range(sets):
        z = torch.randn(count, G.z_dim, generator=random)
        found.append(G.mapping(z.to(device), labels.to(device))[:, 0])
    return torch.stack(found)


def style_affines(G: torch.nn.Module, region: int, part: str) -> torch.Tensor:
    """Returns the style affines of the region's layers that use this part, stacked: float64 [layers · C, D]."""
    local = G.synthesis.local
    slots = G.regions.slots(region)
    wanted = [slots[name] for name in ("shape", "texture") if name in roles_of(part)]
    if part == "whole":
        wanted += list(G.regions.base_slots)
    layers = [i for i, slot in enumerate(local.layer_slots[region].tolist()) if slot in wanted]
    if not layers:
        raise UserError(f"No layer of {G.regions.names[region]} sees its {part} code. Choose another part.")
    weight = local.affine_weight[layers, region].detach().double()
    return weight.flatten(0, 1) / np.sqrt(weight.shape[-1])


def factorised(G: torch.nn.Module, region: int, part: str, count: int) -> list[Direction]:
    """Returns the directions that change the region's styles most.

    They are eigenvectors of AᵀA (Shen & Zhou 2021, equation 6).

    Args:
        count: number of directions, from the largest eigenvalue down.
    """
    affines = style_affines(G, region, part)
    values, vectors = torch.linalg.eigh(affines.mT @ affines)
    spread = _covariance(sample_codes(G, MAPPED_SAMPLES, seed=1)[0])
    shares = values / values.sum()
    return [
        _named(G, region, part, "sefa", f"sefa{i + 1}", f"{shares[-1 - i]:.1%} of the styles' gain", vector, spread)
        for i, vector in enumerate(vectors.mT.flip(0)[:count])
    ]


def principal(G: torch.nn.Module, region: int, part: str, count: int) -> list[Direction]:
    """Returns the directions in which the region's codes vary most: principal components (Härkönen et al. 2020).

    Codes of all regions come from one mapping, so all regions have the same components.
    """
    spread = _covariance(sample_codes(G, MAPPED_SAMPLES, seed=1)[0])
    values, vectors = torch.linalg.eigh(spread)
    shares = values / values.sum()
    return [
        _named(G, region, part, "pca", f"pc{i + 1}", f"{shares[-1 - i]:.1%} of the codes' variance", vector, spread)
        for i, vector in enumerate(vectors.mT.flip(0)[:count])
    ]


def boundaries(
    G: torch.nn.Module,
    region: int,
    part: str,
    scores: Sequence[Score],
    count: int,
    batch: int = 8,
    progress: Progress | None = None,
    skipped: Callable[[NoDirection], object] | None = None,
) -> list[Direction]:
    """Returns directions in a region's codes along which scores rise and areas stay (after Shen et al. 2020).

    Each image is rendered with `VARIANTS` different codes for this part of the region. Scores are compared within an
    image, so the rest of the image has no influence. See `score_direction` for the direction.

    Args:
        scores: the scores. Each gets one direction, from the same samples. The least `Score.psi` truncates the samples.
        count: samples to render.
        batch: samples at a time.
        progress: called with the number of samples done.
        skipped: called with the reason for each score without a direction. By default the reason is raised.

    Raises:
        UserError: a score returns no numbers.
        NoDirection: a score cannot be measured, does not vary, or does not depend on the codes.
    """
    roles, psi = roles_of(part), min(score.psi for score in scores)
    images = -(-count // VARIANTS)
    count = images * VARIANTS
    average = G.mapping.w_avg
    rest = average.lerp(sample_codes(G, images, seed=2)[0], psi).repeat_interleave(VARIANTS, dim=0)
    own = average.lerp(sample_codes(G, count, seed=3, sets=len(roles)), psi)
    measured, areas, shares = [[] for _ in scores], [], []
    for start in range(0, count, batch):
        rows = slice(start, start + batch)
        ws = rest[rows, None].expand(-1, G.num_ws, -1)
        ws = (G.synthesis.expand(ws) if "base" in roles else ws).clone()
        slots = part_slots(ws, G.regions, region, G.synthesis.local.layer_slots)
        for role, codes in zip(roles, own[:, rows], strict=True):
            ws[:, slots[role]] = codes[:, None]
        out = G.synthesis(ws, noise_mode="const", return_mask=True)
        for score, found in zip(scores, measured, strict=True):
            found.append(_checked(score(out.image, out.mask, region), score, len(ws)).double().cpu())
        areas.append(mask_areas(out.mask).double().cpu())
        shares.append(out.mask[:, region].double().mean(dim=(1, 2)).cpu())
        if progress is not None:
            progress(len(ws))
    codes = torch.cat([drawn.cpu().double() for drawn in own], dim=1)
    others = [k for k in range(len(G.regions)) if k not in (0, region)]
    other_areas, own_share = torch.cat(areas)[:, others], torch.cat(shares)[:, None]
    found = []
    for score, values in zip(scores, measured, strict=True):
        held = ([own_share] if score.keeps else []) + ([other_areas] if score.holds else [])
        held = torch.cat(held, dim=1) if held else other_areas[:, :0]
        try:
            found.append(_boundary(G, region, part, score, torch.cat(values), codes, held, psi))
        except NoDirection as reason:
            if skipped is None:
                raise
            skipped(reason)
    return found


def _boundary(
    G: torch.nn.Module,
    region: int,
    part: str,
    score: Score,
    values: torch.Tensor,
    codes: torch.Tensor,
    held: torch.Tensor,
    psi: float,
) -> Direction:
    """Returns the direction of one score.

    Its inputs are the values [N], the codes [N, roles · D], the areas that shall stay [N, M], and the truncation of the
    codes.
    """
    name, total = G.regions.names[region], len(values)
    there = values.isfinite()
    if there.sum() < FEWEST:
        raise NoDirection(
            f"{score.name} of {name} exists in only {int(there.sum())} of {total} samples. Choose another score."
        )
    if score.circular:
        values = _unwrapped(values)
    roles, image = roles_of(part), torch.arange(total) // VARIANTS
    if _centred(values, image)[2] < 1e-9:
        raise NoDirection(f"{score.name} of {name} is the same in all {total} samples. Choose another score.")
    step, slope = score_direction(codes, values, held, image, len(roles))
    if not step.any():
        kind = "" if part == "both" else f"{part} "
        raise NoDirection(
            f"{score.name} of {name} does not depend on its {kind}codes in {total} samples. Choose another --part, "
            "another --score, or a larger --count."
        )
    step, slope = step / psi, slope / psi
    moves = dict(zip(roles, step.split(G.w_dim), strict=True))
    zero = torch.zeros(G.w_dim, dtype=torch.float64)
    stacked = torch.stack([moves.get(role, zero) for role in ROLES]).float()
    told = f"{score.name} {slope:+.3g} {score.unit}".strip() + f" a step, {int(there.sum())} samples"
    return Direction(_name(name, part, score.name, score.part), "boundary", name, part, told, stacked)


def within_images(table: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
    """Returns rows [N, M], less the mean of all rows of the same image [N]. All are of one image by default."""
    if image is None:
        return table - table.mean(dim=0)
    groups = int(image.max()) + 1
    sums = table.new_zeros(groups, table.shape[1]).index_add(0, image, table)
    return table - (sums / torch.bincount(image, minlength=groups).clamp(min=1)[:, None])[image]


def score_direction(
    codes: torch.Tensor,
    values: torch.Tensor,
    held: torch.Tensor,
    image: torch.Tensor | None = None,
    roles: int = 1,
) -> tuple[torch.Tensor, float]:
    """Returns the likeliest step of codes that raises a linear score and keeps other scores.

    Linear scores have the normals B = Σ⁻¹C, where C holds the covariances of codes and scores. A step d must raise the
    first score and no other: Bᵀd = e₁. The likeliest such step has the least dᵀΣ⁻¹d. It is d = C (CᵀΣ⁻¹C)⁻¹ e₁. Without
    other scores it is the covariance itself, the mean code of samples with a high score. The normal of a boundary would
    mostly move along directions in which codes hardly vary.

    Codes of different roles are independent. A role on which a score does not depend has covariances by chance alone.
    They are shrunk after James and Stein (1961): to nothing where they are not larger than by chance.

    Args:
        codes: float64 [N, roles · D].
        values: the score, [N]. NaN where it cannot be measured.
        held: the other scores, [N, M]. Scores that are constant, or do not depend on the codes, are left out.
        image: of each sample, [N]. Codes and scores are compared with other samples of the image.
        roles: number of codes.

    Returns:
        The step [roles · D], one standard deviation of the codes along it, and what it adds to the score. Both are 0
        if the score depends on the codes no more than by chance.
    """
    columns = [values, *(column for column in held.unbind(dim=1) if _centred(column, image)[2] > 1e-9)]
    width = codes.shape[1] // roles
    parts = [_role_covariances(role_codes, columns, image) for role_codes in codes.split(width, dim=1)]
    shared, normals, spreads = (list(side) for side in zip(*parts, strict=True))
    shared, normals = torch.cat(shared), torch.cat(normals)
    if not shared[:, 0].any():
        return shared[:, 0], 0.0
    varying = shared.any(dim=0)
    shared, normals = shared[:, varying], normals[:, varying]
    overlap = shared.mT @ normals
    first = torch.zeros(len(overlap)).to(overlap)
    first[0] = 1
    shrink = RIDGE * overlap.diagonal().mean() * torch.eye(len(overlap)).to(overlap)
    step = shared @ torch.linalg.solve(overlap + shrink, first)
    step = step / step.norm()
    step = step * (step @ torch.block_diag(*spreads) @ step).sqrt()
    return step, float(step @ normals[:, 0]) * _centred(values, image)[2]


def _role_covariances(
    codes: torch.Tensor, columns: Sequence[torch.Tensor], image: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the shrunk covariances C of codes [N, D] with scores of deviation 1, Σ⁻¹C, and the covariance of codes.

    Shapes are [D, M], [D, M] and [D, D].
    """
    inside = within_images(codes, image)
    spread = inside.mT @ inside / _freedom(len(codes), image)
    ridge = spread + RIDGE * spread.diagonal().mean() * torch.eye(len(spread)).to(spread)
    dimensions = float(torch.linalg.solve(ridge, spread).diagonal().sum())
    shared = []
    for column in columns:
        score, rows, deviation = _centred(column, image)
        of_rows = None if image is None else image[rows]
        free = _freedom(len(score), of_rows)
        covariance = within_images(codes[rows], of_rows).mT @ score / (deviation * free)
        chance = dimensions / (free * float(covariance @ torch.linalg.solve(ridge, covariance)) + 1e-9)
        shared.append(covariance * max(1 - chance, 0.0))
    shared = torch.stack(shared, dim=1)
    return shared, torch.linalg.solve(ridge, shared), spread


def _centred(column: torch.Tensor, image: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Returns the finite numbers of a score less their image's mean, their rows, and their deviation."""
    rows = column.isfinite()
    of_rows = None if image is None else image[rows]
    score = within_images(column[rows, None], of_rows)[:, 0]
    return score, rows, float((score.square().sum() / _freedom(len(score), of_rows)).sqrt())


def _freedom(count: int, image: torch.Tensor | None) -> int:
    """Returns the degrees of freedom of rows less their image's mean."""
    return max(count - (1 if image is None else len(image.unique())), 1)


def _covariance(codes: torch.Tensor) -> torch.Tensor:
    return torch.cov(codes.double().mT)


def _unwrapped(degrees: torch.Tensor) -> torch.Tensor:
    """Returns angles in degrees as numbers around their circular mean."""
    angles = torch.deg2rad(degrees)
    middle = torch.atan2(angles.sin().nanmean(), angles.cos().nanmean())
    return torch.rad2deg(torch.remainder(angles - middle + torch.pi, 2 * torch.pi) - torch.pi)


def _checked(values: object, score: Score, count: int) -> torch.Tensor:
    if not isinstance(values, torch.Tensor) or values.shape != (count,):
        raise UserError(f"The score {score.name} must return a tensor with one number per image, [{count}].")
    return values.detach()


def _named(
    G: torch.nn.Module,
    region: int,
    part: str,
    method: str,
    label: str,
    told: str,
    vector: torch.Tensor,
    spread: torch.Tensor,
) -> Direction:
    """Returns a direction with one vector for all codes of the part.

    Its largest number is positive. Its length is one standard deviation.
    """
    vector = vector * vector[vector.abs().argmax()].sign() * (vector @ spread @ vector).clamp_min(0).sqrt()
    roles = roles_of(part)
    codes = torch.stack([vector if role in roles else torch.zeros_like(vector) for role in ROLES]).float().cpu()
    name = G.regions.names[region]
    return Direction(_name(name, part, label, "both"), method, name, part, told, codes)


def _name(region: str, part: str, label: str, usual: str) -> str:
    """Returns a name such as 'hair/area', or 'hair/texture-area' for an unusual part."""
    return f"{region}/{label}" if part == usual else f"{region}/{part}-{label}"


def merge(old: Sequence[Direction], new: Sequence[Direction]) -> list[Direction]:
    """Returns old and new directions. A new direction replaces an old direction of the same name."""
    return list({d.name: d for d in (*old, *new)}.values())
