"""The policy on µm/px: what a slide may claim and a caller may override. Never guessed."""

from encoders.errors import MissingMpp
from encoders.types import SlideFacts

# µm/px that a scanner's level 0 can have; 0.05 is below the optical limit, 4 is a 2.5× objective.
FINEST_MPP = 0.05
COARSEST_MPP = 4.0
# A lone low level of a pyramid (DICOM) states tens of µm/px and means it. Generic TIFF derives µm/px from the
# resolution tags, where 72 dpi of a picture editor becomes 352.8.
COARSEST_LONE_LEVEL_MPP = 100.0
# Relative difference of mpp-x and mpp-y; scanners have square pixels.
ANISOTROPY = 0.05


def credible_mpp(vendor: str, mpp_x: float | None, mpp_y: float | None) -> float | None:
    """The mean of the two when both are there, about equal and possible; None = missing."""
    if mpp_x is None or mpp_y is None:
        return None
    mpp = (mpp_x + mpp_y) / 2
    coarsest = COARSEST_MPP if vendor == "generic-tiff" else COARSEST_LONE_LEVEL_MPP
    if not FINEST_MPP <= mpp <= coarsest or abs(mpp_x - mpp_y) >= ANISOTROPY * mpp:
        return None
    return mpp


def effective_mpp(facts: SlideFacts, mpp_override: float | None) -> float:
    """The caller's µm/px, else the slide's; raises MissingMpp when there is none or the caller's is absurd."""
    if mpp_override is not None:
        require_possible(mpp_override)
    mpp = facts.mpp if mpp_override is None else mpp_override
    if mpp is None:
        raise MissingMpp("The slide states no resolution, or an absurd one; give `mpp` (µm/px) to encode it.")
    return mpp


def require_possible(mpp_override: float) -> None:
    """Raises MissingMpp when no scanner has such a level 0."""
    if not FINEST_MPP <= mpp_override <= COARSEST_MPP:
        raise MissingMpp(f"`mpp` must lie between {FINEST_MPP:g} and {COARSEST_MPP:g} µm/px.")
