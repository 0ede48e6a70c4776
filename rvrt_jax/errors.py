"""The one exception that stands for a mistake of the user."""


class UserError(ValueError):
    """A mistake the user can mend: the message says what was wrong and the way out.

    Command-line entry points print it without a traceback and exit with code 1.
    """
