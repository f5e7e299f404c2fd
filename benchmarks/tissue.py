"""Quality of tissue detection: intersection over union with what was drawn, by today's rule and by the first one.

    python -m benchmarks.tissue

Nothing is timed. Drawn slides as they are, and as the field has them: dark chromogens beside pale tissue, backgrounds
blacked up to it, areas that were never scanned, shades and yellow on the glass.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.first_tissue_rule import find_tissue_v1
from benchmarks.tissue_scenes import SCENES, SEEDS, draw_scene, overlap
from encoders.tiling.tissue.find_tissue import find_tissue


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each scene: mean and lowest over the slides."""
    _parser().parse_args(arguments)
    drawn = [draw_scene(seed) for seed in SEEDS]
    print(f"{'mean (lowest) over ' + str(len(SEEDS)) + ' slides':32}{'first rule':>16}{'today':>16}")
    for name, change in SCENES.items():
        scenes = [change(scene) for scene in drawn]
        columns = [[overlap(rule(it.rgb), it.tissue) for it in scenes] for rule in (find_tissue_v1, find_tissue)]
        print(f"{name:32}" + "".join(f"{np.mean(it):9.3f} ({min(it):.2f})" for it in columns))


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


if __name__ == "__main__":
    main()
