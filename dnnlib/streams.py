"""Standard output and error that never stop the work: they may be closed, full, or lack characters."""

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
    """A text stream that writes to another stream and drops text that the other stream refuses. Never raises.

    It has no `buffer`. click would write UTF-8 to a buffer, regardless of the stream's encoding.

    Args:
        stream: stream for the text. None drops all text, for example if Python starts with a closed descriptor.

    Attributes:
        failure: first system error that lost text. A reader that closed a pipe does not count.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the other stream. tqdm chooses the characters of its bar by the encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """The error mode of the stream: characters without an encoding are always replaced."""
        return "replace"

    def write(self, text: str) -> int:
        """Write as much of the text as the other stream accepts. Returns the length of the text."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream needs text, not {type(text).__name__}")
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
        """Flush the other stream if possible."""
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
            self.release()  # the reader is gone for good
        elif self.failure is None:
            self.failure = error

    def release(self) -> None:
        """Redirect the descriptor of a broken stream to the null device, so that Python ends without an error."""
        stream, self._stream = self._stream, None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, stream.fileno())
            finally:
                os.close(nowhere)

    def finish(self) -> None:
        """Flush for the last time. Text that cannot be written is dropped."""
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
        """Returns the descriptor of the other stream.

        Raises:
            io.UnsupportedOperation: the other stream has no descriptor.
        """
        try:
            return self._stream.fileno()
        except (AttributeError, ValueError) as error:
            raise io.UnsupportedOperation("this stream has no descriptor") from error

    def writable(self) -> bool:
        """Always True: writing never fails."""
        return True


def readable(text: str, encoding: str) -> str:
    """Returns the text with replacements for characters outside of an encoding: `²` becomes `^2`, `é` becomes `e`."""
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
    """Yields standard output and error as steady streams, until the end of `with`."""
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
    """Open closed ones of the first three descriptors. Otherwise a new file would receive what libraries print."""
    with contextlib.suppress(OSError):
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(handle, True)
        os.close(handle)


class Command(click.Command):
    """A click command that continues when standard output or error fail.

    Attributes:
        prints_results: the output is the result, so lost output is an error: exit code 1 and one line.
    """

    prints_results = False

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Same as `click.Command.main`."""
        with protected() as (output, errors):
            try:
                return super().main(*args, **kwargs)
            except SystemExit as ending:
                output.finish()
                if output.failure is None or ending.code not in (0, None):
                    raise
                line = f"Cannot write to standard output, text was lost: {output.failure.strerror}."
                if not self.prints_results:
                    errors.write(f"{line}\n")
                    raise
                UserError(line).show(errors)
                sys.exit(1)
