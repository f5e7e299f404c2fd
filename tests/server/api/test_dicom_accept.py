"""What `Accept` allows of a DICOM slide."""

import pytest

from server.api.dicom_accept import frame_type, require_files
from server.errors import NotAcceptable

JPEG, NATIVE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "multipart/related",
        'multipart/related; type="application/dicom"',
        'multipart/related; type="application/dicom"; transfer-syntax=*',
        f'multipart/related; type="application/dicom"; transfer-syntax={JPEG}',
        f'text/html, multipart/related; type="application/dicom"; transfer-syntax={JPEG};q=0.5',
    ],
)
def test_files_are_sent_as_they_came(accept: str) -> None:
    require_files(accept, [JPEG])


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/dicom",
        'multipart/related; type="application/dicom+json"',
        f'multipart/related; type="application/dicom"; transfer-syntax={NATIVE}',
        'multipart/related; type="application/dicom";q=0',
    ],
)
def test_nothing_is_transcoded(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        require_files(accept, [JPEG])


@pytest.mark.parametrize(
    ("accept", "syntax", "media_type"),
    [
        ("*/*", JPEG, "image/jpeg"),
        ('multipart/related; type="image/*"', JPEG, "image/jpeg"),
        (f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}', JPEG, "image/jpeg"),
        ('multipart/related; type="application/octet-stream"', NATIVE, "application/octet-stream"),
        ('multipart/related; type="*/*"', "1.2.840.10008.1.2.4.91", "image/jp2"),
    ],
)
def test_frames_have_the_type_of_their_transfer_syntax(accept: str, syntax: str, media_type: str) -> None:
    assert frame_type(accept, syntax) == media_type


@pytest.mark.parametrize("accept", ['multipart/related; type="application/octet-stream"', "image/jpeg"])
def test_frames_are_not_decoded(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=JPEG):
        frame_type(accept, JPEG)
