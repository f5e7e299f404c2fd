"""Whole-slide DICOM by pydicom: one instance a level, JPEG frames as they are given, TILED_SPARSE where some lack."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items

_WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


@dataclass(frozen=True)
class DicomLevel:
    """`frames` are the tiles in raster order, b"" for none; `mpp` in µm/px."""

    width: int
    height: int
    mpp: float
    frames: list[bytes]


def write_dicom(
    folder: Path, levels: Sequence[DicomLevel], tile_px: int, objective_power: float, photometric: str
) -> Path:
    """One file a level; the first of them."""
    folder.mkdir()
    ids = {"study": uid.generate_uid(), "series": uid.generate_uid(), "frame": uid.generate_uid()}
    for index, level in enumerate(levels):
        _instance(level, index, tile_px, objective_power, photometric, ids).save_as(
            folder / f"l{index}.dcm", enforce_file_format=True
        )
    return folder / "l0.dcm"


def _instance(
    level: DicomLevel, index: int, tile_px: int, objective_power: float, photometric: str, ids: dict[str, str]
) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    dataset.file_meta.MediaStorageSOPClassUID = _WSI
    dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    dataset.SOPClassUID = _WSI
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = ids["study"], ids["series"]
    dataset.FrameOfReferenceUID, dataset.ContainerIdentifier = ids["frame"], "drawn"
    dataset.PatientName = dataset.PatientID = "DRAWN"
    dataset.Modality, dataset.InstanceNumber, dataset.VolumetricProperties = "SM", index + 1, "VOLUME"
    dataset.ImageType = [
        "ORIGINAL" if not index else "DERIVED",
        "PRIMARY",
        "VOLUME",
        "NONE" if not index else "RESAMPLED",
    ]
    frames = [frame for frame in level.frames if frame]
    if len(frames) < len(level.frames):
        dataset.DimensionOrganizationType = "TILED_SPARSE"
        dataset.PerFrameFunctionalGroupsSequence = Items(_positions(level, tile_px))
    else:
        dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.Rows = dataset.Columns = tile_px
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = level.width, level.height
    dataset.TotalPixelMatrixFocalPlanes = dataset.NumberOfOpticalPaths = 1
    dataset.ImagedVolumeWidth, dataset.ImagedVolumeHeight = (
        side * level.mpp / 1e3 for side in (level.width, level.height)
    )
    dataset.ImagedVolumeDepth = 0.001
    dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.LossyImageCompression = "01"
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    dataset.TotalPixelMatrixOriginSequence = Items([origin])
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [level.mpp / 1e3, level.mpp / 1e3], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = Items([measures])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    path = Dataset()
    path.OpticalPathIdentifier, path.ObjectiveLensPower = "1", objective_power
    dataset.OpticalPathSequence = Items([path])
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _positions(level: DicomLevel, tile_px: int) -> Iterator[Dataset]:
    """Where each frame lies, counted from 1."""
    columns = -(-level.width // tile_px)
    for index, frame in enumerate(level.frames):
        if frame:
            row, column = divmod(index, columns)
            place = Dataset()
            place.ColumnPositionInTotalImagePixelMatrix = column * tile_px + 1
            place.RowPositionInTotalImagePixelMatrix = row * tile_px + 1
            place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
            place.ZOffsetInSlideCoordinateSystem = 0
            groups = Dataset()
            groups.PlanePositionSlideSequence = Items([place])
            yield groups
