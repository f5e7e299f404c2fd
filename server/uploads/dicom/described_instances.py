"""The instances of a slide that is a DICOM series, with what their headers say: read in a process of the sandbox."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.dicom.instance_process import DescribedFile
from encoders.errors import UnreadableSlide
from server.uploads.dicom.dicom_instance import DicomInstance, read_instance
from server.uploads.one_slide import SourceFile
from server.uploads.slide_inspection import SlideInspector
from server.uploads.slide_source import arranged


@dataclass(frozen=True)
class DescribedInstance:
    """A level of a slide, or a part of one: the file that it is, and what its header says."""

    instance: DicomInstance
    file: SourceFile
    described: DescribedFile


async def describe_instances(
    tenant: str, series: str, files: Sequence[SourceFile], folder: Path, inspector: SlideInspector
) -> tuple[DescribedInstance, ...]:
    """Those of `files` that are levels of the series; labels, overviews and thumbnails are not looked at. `folder` is
    used and cleared. They keep the order of the files.

    Raises:
        SlideError: a header cannot be read, or says something else to pydicom than to us.
    """
    found = await asyncio.to_thread(_levels, series, files)
    if not found:
        return ()
    by_name = {file.sha256: (instance, file) for instance, file in found}
    try:
        with arranged({name: file.path for name, (_, file) in by_name.items()}, folder) as root:
            headers = await inspector.dicom_headers(tenant, root)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    said = {header.name: header for header in headers}
    described = [DescribedInstance(it, file, said[name]) for name, (it, file) in by_name.items() if name in said]
    if len(described) < len(by_name) or not all(map(_agrees, described)):
        raise UnreadableSlide("A DICOM header of the slide contradicts itself; export the series again.")
    return tuple(described)


def _levels(series: str, files: Sequence[SourceFile]) -> list[tuple[DicomInstance, SourceFile]]:
    read = ((read_instance(file.path), file) for file in files)
    levels = [(it, file) for it, file in read if it is not None and it.is_whole_slide_image and it.is_level]
    return [(it, file) for it, file in levels if it.series == series]


def _agrees(it: DescribedInstance) -> bool:
    """Whether both readings of the file found the same UIDs, by which it is stored and found."""
    said = [it.described.attributes.get(tag, {}).get("Value") for tag in ("0020000D", "0020000E", "00080018")]
    return said == [[it.instance.study], [it.instance.series], [it.instance.sop_instance]]
