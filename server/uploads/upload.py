"""Step 1, upload: a request body becomes a `ReceivedSlide`, hashed while it is written, in constant memory.

A slide is one file, or several that only make sense together: the form field `file` may be repeated, and then the
file names are paths within the slide.
"""

import errno
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from python_multipart.exceptions import FormParserError
from starlette.requests import ClientDisconnect

from server.errors import InvalidRequest, StorageFull, StorageUnavailable
from server.telemetry.metrics import Metrics
from server.uploads.one_slide import MAX_FILENAME_BYTES, SourceFile
from server.uploads.slide_identity import slide_id_of
from server.uploads.slide_metadata import NOTHING_SAID, SlideMetadata, said_metadata
from server.uploads.staged_parts import StagedParts
from server.uploads.upload_files import BackgroundWriter, UploadBudget, UploadLimits
from server.uploads.upload_form import files_of, slide_form


@dataclass(frozen=True)
class ReceivedSlide:
    """A staged upload in a folder of its own, which the caller removes."""

    folder: Path
    files: tuple[SourceFile, ...]
    metadata: SlideMetadata = NOTHING_SAID

    @property
    def slide_id(self) -> str:
        """The slide's identity."""
        return slide_id_of(self.files)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.files)


async def receive_slide(
    body: AsyncIterator[bytes],
    content_type: str,
    folder: Path,
    limits: UploadLimits,
    metrics: Metrics,
    *,
    describes: bool = True,
) -> ReceivedSlide:
    """Write the files of a multipart body into the new folder `folder`. It may say what the slide is about unless it
    does not describe one.

    On any failure the folder is gone.

    Raises:
        InvalidRequest: not multipart, no file, names that cannot be one slide's, a text that is not taken, or cut off.
        UnsupportedFormat: an empty file.
        UploadTooLarge: beyond the limit.
        StorageFull: the disk is.
    """
    with staged(folder):
        room = UploadBudget(folder, limits, metrics)
        form = slide_form(content_type, room, describes=describes)
        await receive_parts(body, form.parts)
        return ReceivedSlide(folder, files_of(form.parts), said_metadata(form.said))


@contextmanager
def staged(folder: Path) -> Iterator[None]:
    """A new folder for the files of a body; gone on any failure.

    Raises:
        StorageFull, StorageUnavailable: in place of OSError.
    """
    try:
        folder.mkdir()
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk is full; delete slides or add space, then upload again.") from error
        raise StorageUnavailable("The upload cannot be written to disk; try again shortly.") from error
    except BaseException:  # a client that hangs up cancels us: its half file must not stay either
        shutil.rmtree(folder, ignore_errors=True)
        raise


async def receive_parts(body: AsyncIterator[bytes], parts: StagedParts) -> None:
    """Write a multipart body's parts to their files; raises InvalidRequest, UploadTooLarge, OSError."""
    try:
        async with BackgroundWriter() as writer:
            async for chunk in body:
                parts.feed(chunk)
                if parts.wants_writing:
                    await writer.write(parts.take())
            await writer.write(parts.take())
    except FormParserError as error:
        raise InvalidRequest("The body is not a valid multipart body.") from error
    except ClientDisconnect as error:
        raise InvalidRequest("The upload was cut off; send it again.") from error
    finally:
        parts.close()


def display_name(path: str) -> str:
    """The last part of a file's name, printable, or `slide`; it is shown, never used as a path."""
    printable = "".join(character for character in path.rsplit("/", 1)[-1] if character.isprintable())
    return printable.encode()[:MAX_FILENAME_BYTES].decode(errors="ignore") or "slide"
