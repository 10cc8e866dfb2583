"""The registry of configurations. Only this module of the framework names a plugin."""

from collections.abc import Collection

import click

from dnnlib import get_obj_by_name

CONFIGURATIONS = {
    **dict.fromkeys(
        ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar"), "training.configurations.StyleGAN2"
    ),
    "semantic": "semantic.presets.Semantic",
    "semantic-adapt": "semantic.adaptation.presets.SemanticAdaptation",
}
"""Maps a value of --cfg to a class name, see `training.configurations.Configuration`."""


def find_configuration(name: str, given: Collection[str] = ()) -> type:
    """Returns the class of a configuration.

    Args:
        name: value of --cfg.
        given: names of the options that the user gave.

    Raises:
        click.UsageError: the configuration does not accept one of these options.
    """
    found = get_obj_by_name(CONFIGURATIONS[name])
    for option in sorted(set(given) - found.accepted()):
        others = [other for other in CONFIGURATIONS if option in get_obj_by_name(CONFIGURATIONS[other]).accepted()]
        raise click.UsageError(f"--{option.replace('_', '-')} needs --cfg={' or '.join(others)}.")
    return found
