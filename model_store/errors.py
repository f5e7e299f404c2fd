"""The root of Eyepiece's one error tree.

    EyepieceError                    code + one sentence that says what to do
    ├── ModelError                   model_store.errors    a model's files or manifest
    ├── SlideError                   encoders.errors       what a slide can be guilty of
    └── RequestError, …              server.errors         what a request or a dependency can be guilty of

It stands in the lowest package because imports point one way: server → encoders → model_store.
`server.errors.HTTP_STATUS` is the one table from `code` to an HTTP status.
"""

from typing import ClassVar


class EyepieceError(Exception):
    """An error whose text may be shown to a client: never a path, a file name, a secret or PHI."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ModelError(EyepieceError):
    """A model is missing, incomplete, or not what its manifest says."""

    code = "model_unavailable"
