"""A file of certificates is tried when a setting names it, wherever a setting does."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from server.uploads.dicom.archive import DicomwebArchive
from server.webhooks.endpoint import WebhookEndpoint

ARCHIVE = {"name": "pacs", "tenants": ["a"], "url": "https://pacs.example"}
RECEIVER = {"name": "lis", "tenant": "a", "url": "https://lis.example", "secrets": ["whsec_" + "a" * 32]}


@pytest.mark.parametrize(("model", "said"), [(DicomwebArchive, ARCHIVE), (WebhookEndpoint, RECEIVER)])
def test_what_holds_no_certificates_is_refused_in_words(
    tmp_path: Path, model: type[BaseModel], said: dict[str, Any]
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    assert model.model_validate(said).model_dump()["ca_file"] is None
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ValidationError, match="file of certificates in PEM"):
            model.model_validate({**said, "ca_file": tmp_path / name})
