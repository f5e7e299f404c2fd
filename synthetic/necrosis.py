"""Necrosis: pink granular debris with pale ghosts of cells and specks of broken nuclei."""

import numpy as np

from synthetic.nucleus_sprites import NucleusKind, anyhow, sprites_of
from synthetic.sketch import Material, Nuclei, Sketch
from synthetic.world_noise import scatter

_GHOSTS, _DUST = 30, 31

# Little inside, so that only an outline is left.
GHOST = NucleusKind(4.2, 0.2, 1.25, 46.0, 0.15, vesicular=0.85, irregular=0.1)
DUST = NucleusKind(0.75, 0.3, 1.3, 190.0, 0.1, vesicular=0.0)


def debris(sketch: Sketch, seed: int, mpp: float) -> list[Nuclei]:
    """Ghosts and dust where the sketch is necrotic."""
    if not (sketch.materials == Material.NECROSIS).any():
        return []
    return [
        _strewn(sketch, (seed, _GHOSTS), GHOST, 15.0, 0.5, mpp),
        _strewn(sketch, (seed, _DUST), DUST, 6.0, 0.42, mpp),
    ]


def _strewn(
    sketch: Sketch, key: tuple[int, int], kind: NucleusKind, pitch_um: float, share: float, mpp: float
) -> Nuclei:
    found = scatter(key, sketch.box, pitch_um, jitter=0.95)
    found = found.where((found.chances[:, 0] < share) & sketch.is_free(found.points, Material.NECROSIS))
    return Nuclei(sprites_of(kind, mpp), anyhow(np.asarray(found.chances[:, 1])), found.points)
