"""An archive that slides can be pulled from, as EYEPIECE_DICOMWEB_ARCHIVES describes it."""

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from server.trusted_ca import CaFile


class DicomwebArchive(BaseModel):
    """Where an archive's DICOMweb is, for whom, and how this server says who it is there.

    Requests name it; no address ever comes from a request or from an archive's answer.
    """

    # A password that is mistyped would otherwise be quoted in the error.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    tenants: tuple[str, ...] = Field(min_length=1)
    url: str
    user: str = ""
    password: SecretStr | None = None
    token: SecretStr | None = None
    ca_file: CaFile = None
    # Without TLS everybody on the way reads patients' names and the password.
    plain_http: bool = False

    @field_validator("url")
    @classmethod
    def _whole_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be the https:// address below which `studies` is")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a password; write `user` and `password`")
        _ = parts.port  # raises ValueError where it is none
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_way_in(self) -> "DicomwebArchive":
        if urlsplit(self.url).scheme == "http" and not self.plain_http:
            raise ValueError('http:// sends all in the clear; write "plain_http": true if that is meant')
        if bool(self.user) != (self.password is not None) or (self.token is not None and self.user):
            raise ValueError("needs `user` and `password`, or `token`, or none of them")
        return self
