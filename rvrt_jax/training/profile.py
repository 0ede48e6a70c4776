"""A trace of a few steps, for TensorBoard's profiler or ui.perfetto.dev."""

from pathlib import Path

import jax

from rvrt_jax.errors import describe

FOLDER = "profile"
WARM = 2  # steps after the start that are left out: the first one compiles


class Profile:
    """Traces `steps` steps of this process into `workdir`/profile, from the third one on."""

    def __init__(self, workdir: Path, steps: int) -> None:
        self._folder, self._steps = workdir / FOLDER, steps
        self._seen = 0
        self._tracing = False

    def before_step(self) -> None:
        """Starts or ends the trace where it is time to."""
        if self._steps and self._seen == WARM:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        if self._tracing and self._seen == WARM + self._steps:
            self.close()
        self._seen += 1

    def close(self) -> None:
        """Ends the trace, if one is under way."""
        if not self._tracing:
            return
        self._tracing = False
        try:
            jax.profiler.stop_trace()
        except jax.errors.JaxRuntimeError as error:  # it could not be written: of this host alone
            raise OSError(f"the trace cannot be written: {describe(error)}") from error
