"""Standard output and error that never end the work: they may break, fill, be closed, or know few characters."""

import codecs
import contextlib
import errno
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import click

from dnnlib.errors import UserError

_PLAIN = {"²": "^2", "¹": "^1", "⁻": "^-", "×": "x", "·": "*", "…": "...", "–": "-", "—": "-", "’": "'", "‘": "'"}
_PLAIN |= {"“": '"', "”": '"', "→": "->", "≥": ">=", "≤": "<=", "█": "#", "ß": "ss"}
_GONE = (errno.EPIPE, errno.EBADF, errno.ESHUTDOWN)


class SteadyStream(io.TextIOBase):
    """A text stream that writes to another one what that can take, and drops the rest; writing never raises.

    It has no `buffer`: click would write UTF-8 there, whatever the stream is said to show.

    Args:
        stream: where text goes; None drops all of it, as where Python starts with a closed descriptor.

    Attributes:
        failure: the first error of the system that text was lost by; a reader that left is none.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the other stream; tqdm chooses the signs of its bar by it."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What becomes of characters that cannot be encoded: they are always replaced."""
        return "replace"

    def write(self, text: str) -> int:
        """Write text, as far as the other stream takes it; the length of the text."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes text, not {type(text).__name__}")
        if self._stream is None:
            return len(text)
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._attempt(self._stream.write, readable(text, self.encoding))
        except (OSError, RuntimeError, ValueError) as error:
            self._note(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if the other stream takes it."""
        if self._stream is not None:
            self._attempt(self._stream.flush)

    def _attempt(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except (OSError, RuntimeError, ValueError) as error:  # closed streams raise ValueError
            self._note(error)

    def _note(self, error: Exception) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _GONE:
            self.release()  # nobody will ever read it
        elif self.failure is None:
            self.failure = error

    def release(self) -> None:
        """Lead the descriptor of a stream that cannot be written nowhere, so that Python can end without an error."""
        stream, self._stream = self._stream, None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, stream.fileno())
            finally:
                os.close(nowhere)

    def finish(self) -> None:
        """Flush for the last time; text that is stuck is dropped."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except OSError as error:
            self._note(error)
            if self._stream is not None:
                self.release()
        except (RuntimeError, ValueError):
            pass

    def isatty(self) -> bool:
        """Whether a terminal shows the text."""
        with contextlib.suppress(AttributeError, OSError, ValueError):
            return bool(self._stream.isatty())
        return False

    def fileno(self) -> int:
        """The descriptor of the other stream.

        Raises:
            io.UnsupportedOperation: it has none.
        """
        try:
            return self._stream.fileno()
        except (AttributeError, ValueError) as error:
            raise io.UnsupportedOperation("this stream has no descriptor") from error

    def writable(self) -> bool:
        """True: text may always be written."""
        return True


def readable(text: str, encoding: str) -> str:
    """The text with other signs for characters that an encoding does not have: `²` becomes `^2`, `é` becomes `e`."""
    return "".join(_in_encoding(character, encoding) for character in text)


def _in_encoding(character: str, encoding: str) -> str:
    decomposed = unicodedata.normalize("NFD", character)[0]
    for candidate in (character, _PLAIN.get(character), decomposed):
        with contextlib.suppress(UnicodeEncodeError, LookupError):
            if candidate is not None and codecs.encode(candidate, encoding) is not None:
                return candidate
    return character.encode("ascii", "backslashreplace").decode()


@contextlib.contextmanager
def protected() -> Iterator[tuple[SteadyStream, SteadyStream]]:
    """Standard output and error as steady streams, until the end of `with`."""
    _occupy()
    before = sys.stdout, sys.stderr
    steady = SteadyStream(before[0]), SteadyStream(before[1])
    sys.stdout, sys.stderr = steady
    try:
        yield steady
    finally:
        for stream in steady:
            stream.finish()
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Open what is closed of the first three descriptors: a file with their number would get what libraries print."""
    with contextlib.suppress(OSError):
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(handle, True)
        os.close(handle)


class Command(click.Command):
    """A command of click's whose work goes on whatever becomes of standard output and error.

    Attributes:
        prints_results: the output is the result, so output that is lost is an error: exit code 1 and one line.
    """

    prints_results = False

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As `click.Command.main`."""
        with protected() as (output, errors):
            try:
                return super().main(*args, **kwargs)
            except SystemExit as ending:
                output.finish()
                if output.failure is None or ending.code not in (0, None):
                    raise
                line = f"Standard output cannot be written, text was lost: {output.failure.strerror}."
                if not self.prints_results:
                    errors.write(f"{line}\n")
                    raise
                UserError(line).show(errors)
                sys.exit(1)
