"""The attributes of DICOM slides that can be searched for: PS3.18, 10.6.3 (QIDO-RS), and what slides have beside them.

In plain Python without a parser, for whoever searches as for whoever reads them from a file.
"""

from dataclasses import dataclass
from typing import Literal

AttributeLevel = Literal["study", "series", "instance"]


@dataclass(frozen=True)
class SearchedAttribute:
    """An attribute by its tag in hex and its keyword (PS3.6). One that is not `basic` is sent when it is asked for."""

    tag: str
    keyword: str
    vr: str
    level: AttributeLevel
    basic: bool = True


SEARCHED_ATTRIBUTES = (
    SearchedAttribute("00080020", "StudyDate", "DA", "study"),
    SearchedAttribute("00080030", "StudyTime", "TM", "study"),
    SearchedAttribute("00080050", "AccessionNumber", "SH", "study"),
    SearchedAttribute("00080090", "ReferringPhysicianName", "PN", "study"),
    SearchedAttribute("00081030", "StudyDescription", "LO", "study", basic=False),
    SearchedAttribute("00100010", "PatientName", "PN", "study"),
    SearchedAttribute("00100020", "PatientID", "LO", "study"),
    SearchedAttribute("00100030", "PatientBirthDate", "DA", "study"),
    SearchedAttribute("00100040", "PatientSex", "CS", "study"),
    SearchedAttribute("0020000D", "StudyInstanceUID", "UI", "study"),
    SearchedAttribute("00200010", "StudyID", "SH", "study"),
    SearchedAttribute("00080060", "Modality", "CS", "series"),
    SearchedAttribute("00080070", "Manufacturer", "LO", "series", basic=False),
    SearchedAttribute("0008103E", "SeriesDescription", "LO", "series"),
    SearchedAttribute("0020000E", "SeriesInstanceUID", "UI", "series"),
    SearchedAttribute("00200011", "SeriesNumber", "IS", "series"),
    SearchedAttribute("00400512", "ContainerIdentifier", "LO", "series", basic=False),
    SearchedAttribute("00080008", "ImageType", "CS", "instance", basic=False),
    SearchedAttribute("00080016", "SOPClassUID", "UI", "instance"),
    SearchedAttribute("00080018", "SOPInstanceUID", "UI", "instance"),
    SearchedAttribute("00200013", "InstanceNumber", "IS", "instance"),
    SearchedAttribute("00280008", "NumberOfFrames", "IS", "instance"),
    SearchedAttribute("00280010", "Rows", "US", "instance"),
    SearchedAttribute("00280011", "Columns", "US", "instance"),
    SearchedAttribute("00280100", "BitsAllocated", "US", "instance"),
    SearchedAttribute("00480006", "TotalPixelMatrixColumns", "UL", "instance", basic=False),
    SearchedAttribute("00480007", "TotalPixelMatrixRows", "UL", "instance", basic=False),
)
