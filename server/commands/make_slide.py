"""`eyepiece make-slide`: a synthetic slide, so that nobody needs a patient's to try Eyepiece."""

import secrets
from pathlib import Path

from server.commands.outcome import CommandError, ExitCode

SEEDS = 2**31


def make_slide(path: Path, seed: int | None) -> int:
    """Writes an Aperio-style pyramid to `path`; the same seed draws the same slide. Returns the seed.

    Raises:
        CommandError: something is there already.
    """
    if path.exists():
        raise CommandError(f"{path} exists already: name a new file.", ExitCode.USAGE)
    from training.synthetic.write_slide import write_sample_slide  # numpy, tifffile

    seed = secrets.randbelow(SEEDS) if seed is None else seed
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sample_slide(path, seed=seed)
    return seed
