"""Which source of geometry a job gets. Knows VGGT as a program: the same in a server and in a test."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gen3c.errors import InvalidInputError
from gen3c.geometry import files, sfm
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.geometry.vggt import provider as vggt_provider
from gen3c.geometry.vggt.provider import MOST_FRAMES, VggtOptions
from gen3c.geometry.vggt.weights import VggtSource
from gen3c.program import Program
from gen3c_server.geometry_wire import GeometryOptions

_USUAL = VggtOptions()
_FIELD = "spec.geometry.provider"


@dataclass(frozen=True)
class VggtModel:
    """The network behind provider `vggt`."""

    program: Program
    source: VggtSource
    weights: Callable[[], str]  # where they came from, for the answer to the user
    may_be_untrained: bool  # random weights may answer, with a warning
    canvas: tuple[int, int] | None = None  # height, width: the one size of picture that it takes; None: any
    most_frames: int = MOST_FRAMES  # that it takes at once


@dataclass(frozen=True)
class GeometryProviders:
    """All sources of geometry of a server."""

    vggt: VggtModel
    max_pixels: int  # of a view of a geometry file

    def estimate(self, frames: Frames, options: GeometryOptions, file: bytes | None, watch: Watch) -> Geometry:
        """Depth and cameras of `frames`. Raises InvalidInputError, CancelledError."""
        match options.provider:
            case "auto":
                return self._auto(frames, options, watch)
            case "vggt":
                return replace(self._vggt(frames, options, watch), notes=("Geometry by vggt, as asked for.",))
            case "sfm":
                geometry = sfm.estimate(frames, watch, seed=options.seed)
                return replace(geometry, notes=("Geometry by sfm (structure from motion), as asked for.",))
            case "file" if file is not None:
                return files.read_geometry(file, frames, max_pixels=self.max_pixels)
            case _:
                legal = "'auto', 'vggt', 'sfm', or 'file' with GEOMETRY"
                raise InvalidInputError(f"provider is {options.provider!r}; legal: {legal}.", _FIELD)

    def _auto(self, frames: Frames, options: GeometryOptions, watch: Watch) -> Geometry:
        """The network where its released weights are; else structure from motion; a lesser network if that fails."""
        source = self.vggt.source
        name = source.config.name
        if source.is_of_released_size and len(frames) <= self.vggt.most_frames:
            note = f"Geometry by vggt: the server has weights of {name}."
            return replace(self._vggt(frames, options, watch), notes=(note,))
        why = (
            f"{name} takes {self.vggt.most_frames} frames at most"
            if source.is_of_released_size
            else "the server has no weights of VGGT-1B"
        )
        try:
            idle = (options.vggt_confidence, options.vggt_drop_lowest) != (_USUAL.min_confidence, _USUAL.drop_lowest)
            idle_note = " The thresholds of vggt have no effect." if idle else ""
            note = f"Geometry by sfm (structure from motion): {why}.{idle_note}"
            return replace(sfm.estimate(frames, watch, seed=options.seed), notes=(note,))
        except InvalidInputError as error:
            if source.path is None or source.is_of_released_size:
                raise InvalidInputError(
                    f"{error} (That is geometry by sfm, structure from motion: {why}. VGGT's weights on the server, "
                    "or a geometry file, need no matching.)",
                    error.field,
                ) from error
            note = f"Geometry by vggt ({name}), because structure from motion failed: {error}"
        return replace(self._vggt(frames, options, watch), notes=(note,))

    def _vggt(self, frames: Frames, options: GeometryOptions, watch: Watch) -> Geometry:
        model = self.vggt
        untrained = model.source.path is None
        if untrained and not model.may_be_untrained:
            legal = "'sfm', 'file'"
            raise InvalidInputError(
                f"provider is 'vggt', but this server has no weights of VGGT; legal: {legal}.", _FIELD
            )
        if len(frames) > model.most_frames:
            raise InvalidInputError(
                f"VGGT takes 1 to {model.most_frames} frames at once on this server; got {len(frames)}.", "MEDIA"
            )
        thresholds = VggtOptions(options.vggt_confidence, options.vggt_drop_lowest)
        geometry = vggt_provider.estimate(frames, model.program, model.source.config, watch, thresholds, model.canvas)
        warnings = geometry.warnings
        if untrained:
            warnings = ("untrained weights: vggt. Depth and cameras mean nothing.", *warnings)
        return replace(geometry, info={**geometry.info, "weights": model.weights()}, warnings=warnings)
