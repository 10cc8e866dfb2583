"""Types of command-line options."""

import math
import os
import re
from collections.abc import Callable
from typing import Any

import click

from dnnlib.streams import Command

MAX_SEEDS = 1_000_000
KERNELS = ("auto", "plain", "strict")
KERNELS_VARIABLE = "DNNLIB_KERNELS"
"""Environment variable for the user's choice of kernels. Child processes inherit it."""


def kernels_option(command: Callable) -> Callable:
    """Adds --kernels to a command. The value is stored in the environment and not passed to the command."""

    def choose(context: click.Context, parameter: click.Parameter, value: str) -> None:
        os.environ[KERNELS_VARIABLE] = value

    text = "GPU kernels. auto: use tested kernels, else plain PyTorch. plain: never. strict: fail if a kernel is wrong."
    option = click.option(
        "--kernels", type=click.Choice(KERNELS), default="auto", help=text, callback=choose, expose_value=False
    )
    return option(command)


ORDER = "dnnlib.option_types.order"


class InOrderCommand(Command):
    """A command that records the order of its repeatable options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        given = {name: iter(value) for name, value in values.items() if isinstance(value, list)}
        ctx.meta[ORDER] = [(p.name, next(given[p.name])) for p in order if getattr(p, "multiple", False)]
        return super().parse_args(ctx, args)


def in_order(ctx: click.Context) -> list[tuple[str, str]]:
    """Returns names and values of the repeatable options of an `InOrderCommand`, from left to right."""
    return ctx.meta[ORDER]


class SeedList(click.ParamType):
    """Seeds as ``0-7``, ``1,3,5`` or a mixture of both."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        seeds: list[int] = []
        for part in filter(None, (p.strip() for p in value.split(","))):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
            if match is None:
                self.fail(f"{part!r} is not a seed or a range of seeds. Write 0-7 or 1,3,5.", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first or last >= 2**32:
                self.fail(f"{part!r} is not a range from a smaller to a larger seed below 2^32.", param, ctx)
            if last - first >= MAX_SEEDS - len(seeds):
                self.fail(f"{value[:100]!r} names more than {MAX_SEEDS} seeds.", param, ctx)
            seeds += range(first, last + 1)
        if not seeds:
            self.fail("the list of seeds is empty. Write 0-7 or 1,3,5.", param, ctx)
        return seeds


class Number(click.FloatRange):
    """A finite float in a range."""

    name = "float"

    def _describe_range(self) -> str:
        """Returns the range as --help shows it. A type without bounds has no range."""
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Label(click.ParamType):
    """A class, or a vector of finite numbers separated by commas."""

    name = "INT|A,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | list[float]:
        if not isinstance(value, str):
            return value
        if re.fullmatch(r"\s*-?\d+\s*", value):
            return int(value)
        try:
            numbers = [float(part) for part in value.split(",") if part.strip()]
        except ValueError:
            numbers = []
        if not numbers or not all(map(math.isfinite, numbers)):
            self.fail(f"{value[:100]!r} is neither a class nor a vector of finite numbers, as 0.5,1,-2.", param, ctx)
        return numbers


class Share(click.IntRange):
    """An integer from 1 up, or 'auto', which becomes 0."""

    name = "INT|auto"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return 0 if value in ("auto", 0) else super().convert(value, param, ctx)

    def _describe_range(self) -> str:
        return ""
