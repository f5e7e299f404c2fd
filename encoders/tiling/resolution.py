"""The policy on µm/px: what a slide may claim and a caller may override. Never guessed; what contradicts it is said."""

import re
from dataclasses import dataclass

from encoders.errors import MissingMpp
from encoders.types import SlideFacts, SlideWarning

# µm/px that a scanner's level 0 can have; 0.05 is below the optical limit, 4 is a 2.5× objective.
FINEST_MPP = 0.05
COARSEST_MPP = 4.0
# A lone low level of a pyramid (DICOM) states tens of µm/px and means it. Generic TIFF derives µm/px from the
# resolution tags, where 72 dpi of a picture editor becomes 352.8, and inches taken for centimetres or a slipped point
# become 0.05: finer than 0.1 no tag is believed.
COARSEST_LONE_LEVEL_MPP = 100.0
FINEST_TAG_MPP = 0.1
# Relative difference of mpp-x and mpp-y; scanners have square pixels.
ANISOTROPY = 0.05
# µm/px times the objective's power is 10 on common scanners, 9 to 10 on nearly all. MIRAX and Zeiss cameras with
# adapters have 4.4 and more. An export at half the size keeps the power: 20.
_USUAL_PRODUCT = (6.5, 16.0)
_POSSIBLE_PRODUCT = (2.5, 40.0)
_VENDORS_WITH_ADAPTERS = ("mirax", "zeiss")
_ADAPTED_PRODUCT = 4.0
# Two statements about the same pixels that differ by more than rounding does.
_SAME_MPP = 0.10

_NUMBER = r"([0-9]{1,4}(?:[.,][0-9]{1,12})?(?:[eE][-+]?[0-9]{1,2})?)"
# Aperio's, OME's and ImageJ's words for it; some exports write a comma, or XML in single quotes.
_DESCRIBED_MPP = re.compile(rf"(?:\bMPP\s*=\s*|\bPhysicalSizeX=[\"']|\bpixel_width=){_NUMBER}", re.ASCII)
_DESCRIBED_POWER = re.compile(rf"(?:\bAppMag\s*=\s*|\bNominalMagnification=[\"']){_NUMBER}", re.ASCII)
_DESCRIBED_UNIT = re.compile(r"\bPhysicalSizeXUnit=[\"']([^\"']{1,12})|^unit=(\S{1,12})", re.MULTILINE)
# Microns are what OME means where it names no unit. A unit that is not here says nothing.
_UM = {"nm": 0.001, "mm": 1_000.0, "cm": 10_000.0, "um": 1.0, "micron": 1.0, "microns": 1.0}
_UM |= dict.fromkeys(("\u00b5m", "\u03bcm", "&#181;m", "&#xb5;m", "&micro;m", "\\u00b5m"), 1.0)
_DESCRIPTION_CHARS = 20_000
# Aperio's lines on sizes: `46000x32914 [42673,5576 2220x2967] (240x240)` is a scan and, in brackets, what was cut out
# of it. An export of an export has a line for each. Exports by others keep the text, whatever they do to the picture.
_DESCRIBED_SIZE = re.compile(
    r"^[ \t]*([0-9]{1,7})x([0-9]{1,7})(?: ?\[-?[0-9]{1,7}, ?-?[0-9]{1,7} ([0-9]{1,7})x([0-9]{1,7})\])?", re.MULTILINE
)
_ORIGINAL_SIDE = re.compile(r"\bOriginal(Width|Height) ?= ?([0-9]{1,7})", re.IGNORECASE)
# How much one side may be more resized than the other, and the least that is no rounding or cutting of borders.
_SAME_RATIO, _RESIZED_BY = 1.02, 1.5


@dataclass(frozen=True)
class StatedResolution:
    """What a file says in its several places: µm/px that its format goes by, the objective, TIFF's tags, a text.

    `size` is level 0's (width, height) in px, `volume_mm` that of the glass that it shows, by DICOM; None where unsaid.
    """

    vendor: str
    mpp_x: float | None
    mpp_y: float | None
    objective_power: float | None = None
    tag_mpp: float | None = None
    description: str = ""
    size: tuple[int, int] | None = None
    volume_mm: tuple[float, float] | None = None


def judge_resolution(said: StatedResolution) -> tuple[float | None, tuple[SlideWarning, ...]]:
    """The µm/px to go by, None = missing, and what is doubtful about it."""
    if said.mpp_x is None or said.mpp_y is None:
        return None, ()
    mpp = credible_mpp(said.vendor, said.mpp_x, said.mpp_y)
    if mpp is None:
        return None, (_not_believed(said, "which no scanner of this format has"),)
    power = said.objective_power or _found(_DESCRIBED_POWER, said.description)
    if power and not _POSSIBLE_PRODUCT[0] <= mpp * power <= _POSSIBLE_PRODUCT[1]:
        return None, (_not_believed(said, f"which cannot be with its objective of {power:g}×"),)
    return mpp, _contradictions(said, mpp, power)


def credible_mpp(vendor: str, mpp_x: float, mpp_y: float) -> float | None:
    """The mean of the two when they are about equal and possible."""
    mpp = (mpp_x + mpp_y) / 2
    finest, coarsest = FINEST_MPP, COARSEST_LONE_LEVEL_MPP
    if vendor == "generic-tiff":
        finest, coarsest = FINEST_TAG_MPP, COARSEST_MPP
    if not finest <= mpp <= coarsest or abs(mpp_x - mpp_y) >= ANISOTROPY * mpp:
        return None
    return mpp


def effective_mpp(facts: SlideFacts, mpp_override: float | None) -> float:
    """The caller's µm/px, else the slide's; raises MissingMpp when there is none or the caller's is absurd."""
    if mpp_override is not None:
        require_possible(mpp_override)
    mpp = facts.mpp if mpp_override is None else mpp_override
    if mpp is None:
        found = [it.detail for it in facts.warnings if it.code == "mpp_not_believed"]
        raise MissingMpp(
            " ".join([*(found or ["The slide states no resolution."]), "Give `mpp` (µm/px) to encode it."])
        )
    return mpp


def require_possible(mpp_override: float) -> None:
    """Raises MissingMpp when no scanner has such a level 0."""
    if not FINEST_MPP <= mpp_override <= COARSEST_MPP:
        raise MissingMpp(f"`mpp` must lie between {FINEST_MPP:g} and {COARSEST_MPP:g} µm/px; give the slide's own.")


def _not_believed(said: StatedResolution, why: str) -> SlideWarning:
    sizes = f"{said.mpp_x:.4g}" if said.mpp_x == said.mpp_y else f"{said.mpp_x:.4g} × {said.mpp_y:.4g}"
    return SlideWarning("mpp_not_believed", f"The file states {sizes} µm/px, {why}: taken as not stated.")


def _contradictions(said: StatedResolution, mpp: float, power: float | None) -> tuple[SlideWarning, ...]:
    found = []
    lowest = _ADAPTED_PRODUCT if said.vendor in _VENDORS_WITH_ADAPTERS else _USUAL_PRODUCT[0]
    if power and not lowest <= mpp * power <= _USUAL_PRODUCT[1]:
        found.append(f"an objective of {power:g}×, which usually gives {10 / power:.2g}")
    if said.tag_mpp and COARSEST_MPP >= said.tag_mpp >= FINEST_MPP and _differ(said.tag_mpp, mpp):
        found.append(f"TIFF resolution tags of {said.tag_mpp:.4g}")
    described = _described_mpp(said.description)
    if described and _differ(described, mpp):
        found.append(f"a description with {described:.4g}")
    volume = _volume_mpp(said)
    if volume and _differ(volume, mpp):
        found.append(f"an imaged volume that gives {volume:.4g}")
    scan = _scan_of_other_size(said)
    if scan and said.size:
        factor = scan[0] / said.size[0]
        change = f"{factor:.3g} times smaller" if factor > 1 else f"{1 / factor:.3g} times larger"
        found.append(
            f"a picture {change} than the described scan ({scan[0]} × {scan[1]} px), which gives {mpp * factor:.4g}"
        )
    if not found:
        return ()
    detail = (
        f"The slide is read at {mpp:.4g} µm/px, but the file has {', and '.join(found)}. If that is right, give `mpp`."
    )
    return (SlideWarning("mpp_contradicted", detail),)


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > _SAME_MPP * min(one, other)


def _volume_mpp(said: StatedResolution) -> float | None:
    """µm/px by the glass that is shown; padding, which is not shown alike on both sides, says nothing."""
    if said.size is None or said.volume_mm is None:
        return None
    return credible_mpp(said.vendor, *(mm * 1_000 / px for mm, px in zip(said.volume_mm, said.size, strict=True)))


def _scan_of_other_size(said: StatedResolution) -> tuple[int, int] | None:
    """The size in px of the scan or cutting that the description is of, when the picture is that one resized."""
    text = said.description[:_DESCRIPTION_CHARS]
    if said.size is None or not text.startswith("Aperio"):
        return None
    sizes = [
        (int(width), int(height))
        for found in _DESCRIBED_SIZE.findall(text)
        for width, height in (found[2:], found[:2])
        if width and height
    ]
    sides = [(name.lower(), int(px)) for name, px in _ORIGINAL_SIDE.findall(text)]
    sizes += zip(*([px for name, px in sides if name == wanted] for wanted in ("width", "height")), strict=False)
    resized = []
    for width, height in sizes:
        ratios = sorted((width / said.size[0], height / said.size[1]))
        if not ratios[0] or ratios[1] > _SAME_RATIO * ratios[0]:
            continue
        if max(ratios[1], 1 / ratios[0]) <= _SAME_RATIO:  # the picture is what is described
            return None
        if ratios[0] >= _RESIZED_BY or ratios[1] <= 1 / _RESIZED_BY:
            resized.append((width, height))
    return resized[0] if resized else None


def _described_mpp(description: str) -> float | None:
    unit = _DESCRIBED_UNIT.search(description[:_DESCRIPTION_CHARS])
    um = _UM.get((unit[1] or unit[2]).lower()) if unit else 1.0
    size = _found(_DESCRIBED_MPP, description)
    return size * um if size and um else None


def _found(pattern: re.Pattern[str], description: str) -> float | None:
    match = pattern.search(description[:_DESCRIPTION_CHARS])
    return float(match[1].replace(",", ".")) if match else None
