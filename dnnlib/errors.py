"""The one exception for mistakes that a user can make and mend."""

import click


class UserError(click.ClickException):
    """A mistake of the caller, told in one plain line: what is wrong, where, and what to do.

    Every script prints it as ``Error: <message>`` and exits with code 1, without a traceback. Library
    code raises it like any other exception; ``str(error)`` is the line.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))
