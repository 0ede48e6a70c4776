"""What tests of whole runs share."""

import multiprocessing
import os
from pathlib import Path

import pytest
from helpers import standin
from helpers.runs import run


@pytest.fixture(scope="module")
def program_cache(tmp_path_factory):
    """Keeps compiled programs, for tests that compile the same few over and over.

    Yields the environment variables with which other processes use it too.
    """
    with standin.cached_programs(tmp_path_factory.mktemp("programs")) as environment:
        yield environment


@pytest.fixture(scope="module")
def straight(tmp_path_factory, program_cache) -> Path:
    """The folder of a run that was never stopped."""
    workdir = tmp_path_factory.mktemp("straight")
    run(workdir)
    return workdir


@pytest.fixture(scope="module")
def processes():
    """Starts processes from a server that has imported everything once, but touched no device."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        folders = (Path(__file__).parents[1], Path(__file__).parents[2])
        patch.setenv(
            "PYTHONPATH", os.pathsep.join(map(str, folders))
        )  # pytest's are not the server's
        context.set_forkserver_preload(["helpers.command"])
        yield context.Process
