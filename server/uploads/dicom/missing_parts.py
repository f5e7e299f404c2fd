"""What is known to be missing of a DICOM series.

DICOM does not say how many levels a slide has, so nobody can know that a series is complete; only that it is not: its
finest level, or parts of a concatenation, have not come. What is not known to be incomplete becomes a slide when
nothing has come for a while (decision 70).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from server.uploads.dicom.dicom_instance import DicomInstance

_MOST_NAMED = 20


def missing_parts(instances: Sequence[DicomInstance]) -> list[str]:
    """Sentences, none when nothing is known to be missing. They hold no ids."""
    missing: list[str] = []
    levels = [instance for instance in instances if instance.is_level]
    if not any(instance.is_finest_level for instance in levels):
        missing.append("The level of full resolution is missing.")
    concatenations: dict[str, list[DicomInstance]] = defaultdict(list)
    for instance in levels:
        if instance.concatenation is not None:
            concatenations[instance.concatenation].append(instance)
    for parts in concatenations.values():
        missing += _missing_of(parts)
    return missing


def _missing_of(parts: Sequence[DicomInstance]) -> Iterator[str]:
    """Of one concatenation."""
    there = {part.part_number for part in parts if part.part_number is not None}
    count = max([part.part_count or 0 for part in parts] + [*there])
    # At most 65,535 by the element's kind.
    absent = [number for number in range(1, count + 1) if number not in there]
    if absent:
        named = ", ".join(map(str, absent[:_MOST_NAMED])) + (" …" if len(absent) > _MOST_NAMED else "")
        parts_word = "Part" if len(absent) == 1 else "Parts"
        verb = "is" if len(absent) == 1 else "are"
        yield f"{parts_word} {named} of {count} of a level {verb} missing."
        return
    expected = max(part.level_frame_count or 0 for part in parts)
    frames = sum(part.frame_count or 0 for part in parts)
    if frames < expected:
        yield f"A level has {frames} of its {expected} frames; its other parts are missing."
