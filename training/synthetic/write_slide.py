"""A sample slide on disk: seeded H&E-like tissue as an Aperio-style pyramid, for demonstrations and tests."""

from pathlib import Path

from training.synthetic.draw_tissue import TissueSlide
from training.synthetic.write_pyramid import write_pyramid


def write_sample_slide(path: Path, *, seed: int, width_px: int = 4096, height_px: int = 3072, mpp: float = 0.5) -> None:
    """Writes the slide atomically; the same arguments give the same pixels. Not real tissue, and not a diagnosis."""
    tissue = TissueSlide(seed=seed, width_px=width_px, height_px=height_px, mpp=mpp)
    write_pyramid(path, tissue.draw_tile, width_px=width_px, height_px=height_px, mpp=mpp)
