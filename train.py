"""Trains a model: `python train.py --config configs/rvrt_tiny.py [--config.lr=1e-3] …`.

Stop it with Ctrl-C or SIGTERM and start the same command again: it goes on where it was.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, a file in configs/; any value can be set: --config.lr=1e-3.",
    lock_config=True,
)  # fmt: skip
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; runs/<name of the config> by default."
)
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "Join the other hosts of a TPU pod or cluster; start it on every host."
)


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        print(f"error: {argv[1]!r} is not a flag. Did you mean --{argv[1]}?", file=sys.stderr)
        return 1
    # Imported here so that --help and a wrong flag answer at once.
    import jax

    from rvrt_jax import training
    from rvrt_jax.errors import UserError

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every move at INFO
    if MULTIHOST.value:
        jax.distributed.initialize()
    try:
        name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        training.run(CONFIG.value, Path(WORKDIR.value or Path("runs") / name))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; an unknown config key ends in one line instead of a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except AttributeError as error:
        if error.args and isinstance(error.args[0], KeyError):  # what a locked config raises
            message = str(error.args[0].args[0]).replace("\n", ": ")
            sys.exit(f"error: the config has no key {message}")
        raise


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
