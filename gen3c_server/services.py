"""The services of a job, as models of this server. Imported inside the server only."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gen3c_client.contract import GeometryOptions
from torch import Tensor

from gen3c.conditioning import Cameras, ConditionOptions, Contribution
from gen3c.fusion import Pool
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.scene import SourceView
from gen3c_server import bls, conditioner_wire, geometry_wire

PROGRESS_POLL_S = 0.2


class ConditionerModel:
    """The model `conditioner` as a `gen3c.conditioning.Conditioner`."""

    def __call__(
        self,
        view: SourceView,
        cameras: Cameras,
        options: ConditionOptions,
        pool: Pool | None,
        keep: Tensor | None = None,
    ) -> Contribution:
        inputs = conditioner_wire.pack_call(view, cameras, options, pool, keep)
        return conditioner_wire.unpack_result(bls.call("conditioner", inputs, conditioner_wire.OUTPUTS))


class GeometryModel:
    """The model `geometry` as a `gen3c_server.pipeline.GeometryService`, for one job."""

    def __init__(self, job_id: str, progress_dir: Path) -> None:
        self._job_id = job_id
        self._progress = progress_dir / job_id

    def __call__(self, frames: Frames, options: GeometryOptions, file: bytes | None, watch: Watch) -> Geometry:
        # Its seed is fixed: the scene does not depend on the noise that the job asks for.
        call = geometry_wire.GeometryOptions(
            options.provider,
            job=self._job_id,
            vggt_confidence=options.vggt_confidence,
            vggt_drop_lowest=options.vggt_drop_lowest,
        )
        inputs = geometry_wire.pack_call(frames, call, file)
        with self._reported(watch):
            wire = bls.call("geometry", inputs, geometry_wire.OUTPUTS)
        watch.step("geometry", 1, 1)
        return geometry_wire.unpack_result(wire)

    @contextmanager
    def _reported(self, watch: Watch) -> Iterator[None]:
        """Forward what the progress file tells while the call blocks this thread."""
        finished = threading.Event()

        def follow() -> None:
            last = None
            while not finished.wait(PROGRESS_POLL_S):
                progress = geometry_wire.read_progress(self._progress)
                if progress is not None and progress != last:
                    last = progress
                    watch.on_progress(f"geometry/{progress.part}", progress.step, progress.total)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            self._progress.unlink(missing_ok=True)
