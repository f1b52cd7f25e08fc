"""Errors that the user can do something about, and notes on what did not fail."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_printers: list[Callable[[str], Any]] = []  # at most one


class SepcliError(Exception):
    """Something went wrong that the user can fix: one line saying what, where, and what to do.

    The command line prints the message after `Error: ` and exits with 1. Characters that would
    break the line or steer the terminal, as names in hostile files hold, are spelled out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(SepcliError):
    """What was asked for makes no sense, whatever the files are; the command line exits with 2."""


class OutputError(SepcliError):
    """What all items go into cannot be written any more, so that no other item can be done."""


def note(message: Any) -> None:
    """Tell something that the user should know though nothing failed, such as what is left out.

    A line for the logger "sepcli", which the command line prints on standard error.
    """
    import logging

    logger = logging.getLogger("sepcli")
    if _printers and not logger.handlers:
        logger.addHandler(handler := logging.Handler())
        handler.emit = lambda record: _printers[-1](record.getMessage())
    logger.warning("%s", one_line(message))


def print_notes(printer: Callable[[str], Any]) -> None:
    """Have all notes printed by a function of a line, unless somebody handles the logger's."""
    _printers[:] = [printer]


class Notes:
    """Notes of one kind, of which a process tells the first few, as `note` does."""

    def __init__(self, what: str, most: int = 10) -> None:
        """what: of what there may be more than `most`, in the plural."""
        self.what, self.most, self._told = what, most, set()

    def __call__(self, message: str) -> None:
        """Tell a message, unless it or too many others have been told."""
        if message in self._told or len(self._told) > self.most:
            return
        full = len(self._told) == self.most
        self._told.add(message)
        note(f"There are more {self.what}; they are not named" if full else message)


_damage_is_read = False


def is_lenient() -> bool:
    """Whether sound that is cut off or damaged is read as far as it goes, with a note."""
    return _damage_is_read


@contextmanager
def leniency(value: bool = True) -> Iterator[None]:
    """Have `is_lenient` be so in this process, for as long as the block takes."""
    global _damage_is_read
    before, _damage_is_read = _damage_is_read, value
    try:
        yield
    finally:
        _damage_is_read = before


def one_line(message: str) -> str:
    """The message with what would break its line or steer the terminal spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
