"""Errors that the user can do something about."""


class SepcliError(Exception):
    """Something went wrong that the user can fix: one line saying what, where, and what to do.

    The command line prints the message after `Error: ` and exits with 1.
    """
