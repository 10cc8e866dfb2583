"""Names of the module that compiles CUDA sources in StyleGAN2-ADA. The fast operators here are Triton programs."""

from collections.abc import Sequence
from typing import Any, NoReturn

from dnnlib import UserError

verbosity = "brief"
"""Scripts set 'none', 'brief' or 'full'. It has no effect here."""


def get_plugin(module_name: str, sources: Sequence[str] = (), **build_options: Any) -> NoReturn:
    """Never returns: this project compiles no CUDA sources.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"This project compiles no plugins such as {module_name}. Call the operators of torch_utils.ops instead."
    )
