"""Which projects are shown alone: rare cancers are pooled, and no number is given of fewer than five slides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from evaluation.benchmark.items import Item, project_of, slide_name
from evaluation.benchmark.read_json import json_list

LEAST_SLIDES: Final = 5
# Of WSI-Bench's nine rarest every one has fewer readable training slides than this, and 2-6 test slides.
RARE_BELOW: Final = 100


def project_groups(items: Sequence[Item], training_slides: Mapping[str, int] | None = None) -> dict[str, str]:
    """The group of each project: itself, or the pool of rare ones, or of those with too few slides to be shown.

    `training_slides` says which are rare; without it a project is pooled for its few slides alone.
    """
    found: dict[str, set[str]] = {}
    for item in items:
        found.setdefault(item.project, set()).add(item.slide)
    slides = {project: len(names) for project, names in sorted(found.items())}
    rare = {p for p in slides if training_slides is not None and training_slides.get(p, 0) < RARE_BELOW}
    few = {p for p, count in slides.items() if count < LEAST_SLIDES and p not in rare}
    return {
        project: _pool("rare", rare) if project in rare else _pool("few slides", few) if project in few else project
        for project in slides
    }


def is_too_small(items: Sequence[Item]) -> bool:
    """Whether a group is too small for a number."""
    return len({item.slide for item in items}) < LEAST_SLIDES


def training_slides(paths: Sequence[Path]) -> dict[str, int]:
    """Distinct slides by project in training files of WSI-Bench's layout A.

    Raises:
        UnreadableSet: one is no JSON list of rows.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        for row in json_list(path):
            image = str(row.get("image", ""))
            found.setdefault(project_of(image), set()).add(slide_name(image))
    return {project: len(slides) for project, slides in sorted(found.items())}


def _pool(why: str, projects: set[str]) -> str:
    return f"{why}: {', '.join(sorted(p or 'no project' for p in projects))}"
