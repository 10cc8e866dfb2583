"""The one exception for mistakes that a user can make and mend."""

import click

MAX_LETTERS = 1200


class UserError(click.ClickException):
    """A mistake of the caller, told in one plain line: what is wrong, where, and what to do.

    Every script prints it as ``Error: <message>`` and exits with code 1, without a traceback. Library
    code raises it like any other exception; ``str(error)`` is the line. What cannot be printed is shown as an escape
    sequence, and a very long line loses its middle: names in it may come from hostile files.
    """

    def __init__(self, message: str):
        line = " ".join(str(message).split())
        if len(line) > MAX_LETTERS:
            line = f"{line[: MAX_LETTERS // 2]} ... {line[-MAX_LETTERS // 2 :]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))
