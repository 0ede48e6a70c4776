"""What commands share: flags whose mistakes end in one line, recipes by name, compiled programs.

A recipe is given as a file, or by its name: those of configs/ are installed with the package.
"""

import importlib.util
import logging as python_logging
import os
import sys
import tempfile
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from rvrt_jax import files

COMPILE_CACHE = (
    "Folder that compiled programs are kept in, so that the next start finds them; off: in none. "
    "Default: that of the user's cache."
)
MOST_KEPT = 2 * 2**30  # bytes of compiled programs; those not used for longest go


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; leaves the program at an unknown config key or an unreadable config."""
    # config_flags looks for overrides in sys.argv itself.
    sys.argv = argv = _with_recipe_files(argv)
    try:
        return app.parse_flags_with_usage(argv)
    except AttributeError as error:
        if error.args and isinstance(error.args[0], KeyError):  # what a locked config raises
            message = str(error.args[0].args[0]).replace("\n", ": ")
            sys.exit(f"error: the config has no key {message}")
        raise
    except OSError as error:  # the config file
        sys.exit(f"error: {error}")


def check_rest(argv: list[str]) -> None:
    """Leaves the program at an argument that is no flag; quiets libraries unless asked not to."""
    if len(argv) > 1:
        sys.exit(f"error: {argv[1]!r} is not a flag. Did you mean --{argv[1]}?")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every move at INFO


def add_in_one_order() -> None:
    """Lets GPUs add what meets in one place in a fixed order, so that a run repeats bit for bit.

    Gradients of sampling scatter with atomic additions there, whose order changes. XLA sorts them
    instead. To be called before JAX has a device; what XLA_FLAGS says already stays.
    """
    flags_given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags_given} --xla_gpu_deterministic_ops=true".strip()


def keep_programs(choice: str | None) -> None:
    """Keeps compiled programs on disk from now on, and takes them from there.

    choice: as `--compile_cache` gives it: a folder, "off", or None for the default. That is what
    JAX's own JAX_COMPILATION_CACHE_DIR says, else RVRT_JAX_COMPILE_CACHE, which holds a choice too,
    else `programs` in the user's cache. A folder that cannot be written costs a warning and nothing
    else. To be called before anything is compiled.
    """
    import jax  # here, so that --help and a wrong flag answer at once

    if choice is None:
        if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
            return
        choice = os.environ.get("RVRT_JAX_COMPILE_CACHE") or str(files.cache_dir() / "programs")
    if choice == "off":
        jax.config.update("jax_compilation_cache_dir", None)
        return
    folder = Path(choice).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies there is run
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        python_logging.warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MOST_KEPT)


def config_name() -> str:
    """Returns the name of the recipe in --config, with its argument: "edvr_m", "edvr_m_a"."""
    path, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(".py:")
    return "_".join(filter(None, [Path(path).name.removesuffix(".py"), argument]))


def recipe_file(name: str) -> str:
    """Returns the file of a recipe, "rvrt_sr" or "rvrt_tiny:x4"; another name comes back as is."""
    path, colon, argument = name.partition(":")
    if Path(path).suffix == ".py" or Path(path).exists():
        return name
    file = _recipes().get(path)
    return name if file is None else f"{file}{colon}{argument}"


def _recipes() -> dict[str, Path]:
    """Returns the files of the recipes that come with the checkout or the package."""
    found = importlib.util.find_spec("configs")
    folders = (found.submodule_search_locations or ()) if found else ()
    files_there = (file for folder in folders for file in Path(folder).glob("*.py"))
    return {file.stem: file for file in files_there if file.stem not in ("__init__", "common")}


def _there(name: str) -> str:
    """Returns the file of a recipe; leaves the program where there is none."""
    file = recipe_file(name)
    if not Path(file.partition(":")[0]).is_file():
        sys.exit(f"error: there is no recipe {name}; there are {', '.join(sorted(_recipes()))}.")
    return file


def _with_recipe_files(argv: list[str]) -> list[str]:
    """Returns arguments with the file of a recipe in the place of its name after --config."""
    result = list(argv)
    for index, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config") and equals:
            result[index] = f"{flag}={_there(value)}"
        elif index and argv[index - 1] in ("--config", "-config"):
            result[index] = _there(argument)
    return result
