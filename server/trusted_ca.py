"""A file of certificates that the operator names, for a system whose own come from the hospital's authority."""

import ssl
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _holds_certificates(path: Path | None) -> Path | None:
    """Tried when the server starts, rather than when the first connection is made."""
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ValueError("must be a file of certificates in PEM that can be read") from error
    return path


# Of a setting; None trusts those that this machine trusts.
CaFile = Annotated[Path | None, AfterValidator(_holds_certificates)]
