"""The exception for errors of the user."""

import click

MAX_LETTERS = 1200


class UserError(click.ClickException):
    """An error of the user, as one plain line: what is wrong, where, and what to do.

    Every script prints it as ``Error: <message>`` without a traceback, and exits with code 1. Library code raises it
    like any other exception. ``str(error)`` is the line. Names in it may come from hostile files. Therefore unprintable
    characters become escape sequences, and a very long line loses its middle.
    """

    def __init__(self, message: str):
        line = " ".join(str(message).split())
        if len(line) > MAX_LETTERS:
            line = f"{line[: MAX_LETTERS // 2]} ... {line[-MAX_LETTERS // 2 :]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))
