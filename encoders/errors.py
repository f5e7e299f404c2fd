"""Errors of a slide. No HTTP here: `server.errors` owns the status codes.

SlideError                 final: the same bytes fail again, so a job is not retried
├── UnsupportedFormat      not a slide at all
├── UnreadableSlide        truncated, unreadable, or with a damaged tile
├── MissingMpp             no or absurd resolution; `mpp` of the encode request answers it
├── ResolutionTooLow       coarser than the model's target
├── NoTissue               nothing, or less than one tile of it, to encode
├── SlideTooLarge          beyond the configured limits
└── UnusableFeatures       precomputed features that are not what the served model needs
ReaderDied                 the child process crashed or overran its deadline: may pass, so it is retried
EncoderOverflowed          a ModelError: an encoder's numbers left the range of its dtype
DeviceOutOfMemory          no memory for this computation; another, or the same one later, may have it
DeviceLost                 the GPU has failed: this process can encode nothing more
└── DeviceFull             no memory for a single tile, of whichever slide
EncodeCancelled            the caller asked to stop
StoredFileDamaged          an embedding or features file is not what its format says; made again by encoding
RegionError                what was drawn on a slide cannot be asked about
├── UnusableRegion         no outline on the slide
├── RegionTooSmall         too few tiles of tissue in it
├── RegionsUnavailable     of this slide, or by this model, nobody knows what lies in a region
├── EvidenceUnavailable    nothing can be left out of this slide for this model
└── UnknownCell            the evidence has no such cell
"""

from typing import ClassVar

from model_store.errors import EyepieceError, ModelError


class SlideError(EyepieceError):
    """A fault of the slide itself; retrying cannot help."""

    code: ClassVar[str] = "unreadable_slide"


class UnsupportedFormat(SlideError):
    """The file is not in a format that OpenSlide recognises as a slide."""

    code = "unsupported_format"


class UnreadableSlide(SlideError):
    """The file claims to be a slide but cannot be read, wholly or at one level-0 rectangle."""

    code = "unreadable_slide"


class MissingMpp(SlideError):
    """µm/px is absent or absurd; never guessed."""

    code = "missing_mpp"


class ResolutionTooLow(SlideError):
    """The finest level is coarser than the model's target µm/px; never up-sampled in silence."""

    code = "resolution_too_low"


class NoTissue(SlideError):
    """No tissue, or less than one whole tile of it."""

    code = "no_tissue"


class SlideTooLarge(SlideError):
    """Dimensions, levels or tile count are beyond the reader's limits."""

    code = "slide_too_large"


class UnusableFeatures(SlideError):
    """Precomputed features that cannot stand in for this model's own: wrong width, no coordinates, not finite …"""

    code = "unusable_features"


class ReaderDied(EyepieceError):
    """The reader process was killed, crashed, or passed its deadline. Retried up to the job's limit."""

    code = "unreadable_slide"


class DeviceOutOfMemory(EyepieceError):
    """The device had no memory for what was to be computed. Says nothing against the slide; the process can go on."""


class DeviceLost(EyepieceError):
    """The device, or the thread that owns it, has failed. Says nothing about the slide; the process has to end."""


class DeviceFull(DeviceLost):
    """The device's memory does not do for one tile: others have taken it, or it is too small for the model."""


class EncoderOverflowed(ModelError):
    """The result of an encoder is not finite: its dtype is too narrow, or it was given what no model makes."""


class EncodeCancelled(EyepieceError):
    """The cancellation event given to the pipeline was set."""

    code = "cancelled"


class StoredFileDamaged(EyepieceError):
    """A stored embedding or features file is changed, cut, foreign, another slide's, or of another format version."""

    code = "internal_error"


class RegionError(EyepieceError):
    """What was drawn on a slide cannot be asked about; the slide itself can."""

    code: ClassVar[str] = "unusable_region"


class UnusableRegion(RegionError):
    """The region's outline is no simple polygon on the slide."""

    code = "unusable_region"


class RegionTooSmall(RegionError):
    """The region holds too few tiles of tissue; the detail says how many more are needed."""

    code = "region_too_small"


class RegionsUnavailable(RegionError):
    """There are no regions of this slide for this model: it keeps no tiles whose places are known."""

    code = "regions_unavailable"


class EvidenceUnavailable(RegionError):
    """There is no evidence for this answer; the detail says what can be looked at instead."""

    code = "evidence_unavailable"


class UnknownCell(RegionError):
    """There is no tissue in the cell, or no such cell."""

    code = "unknown_cell"
