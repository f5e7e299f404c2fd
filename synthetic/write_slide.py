"""A synthetic slide on disk: H&E-like tissue whose truth is known, as an Aperio-style pyramid."""

from pathlib import Path

from synthetic.slide_truth import SlideTruth
from synthetic.synthetic_slide import SyntheticSlide
from synthetic.write_pyramid import TILE_PX, write_pyramid

# The default slide's field of view, in µm.
WIDTH_UM, HEIGHT_UM = 2_304.0, 1_920.0


def write_synthetic_slide(
    path: Path,
    *,
    seed: int,
    width_px: int | None = None,
    height_px: int | None = None,
    mpp: float = 0.5,
    stain_seed: int | None = None,
) -> SlideTruth:
    """Writes the slide atomically and says what is true of it; the same arguments give the same pixels.

    Without a size it shows 2.3 × 1.9 mm. Not real tissue, and not a diagnosis.
    """
    size = (width_px or round(WIDTH_UM / mpp), height_px or round(HEIGHT_UM / mpp))
    slide = SyntheticSlide(seed=seed, width_px=size[0], height_px=size[1], mpp=mpp, stain_seed=stain_seed)
    write_pyramid(
        path,
        lambda x, y: slide.draw(x, y, TILE_PX, TILE_PX),
        width_px=size[0],
        height_px=size[1],
        mpp=mpp,
        jpeg_quality=slide.stain.jpeg_quality,
    )
    return slide.truth


# What tests and the command line called it before there was a truth about it.
write_sample_slide = write_synthetic_slide
