"""The one exception that stands for a mistake of the user, and how programs report it."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """A mistake the user can mend: the message says what was wrong and the way out.

    Command-line entry points print it without a traceback and exit with code 1.
    """


def exit_code(action: Callable[[], object]) -> int:
    """Runs a program's `action`; returns 0, or 1 after one line about what the user can mend."""
    try:
        action()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
