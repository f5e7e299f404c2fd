"""Quotas: what a tenant may store and have encoded."""

from pydantic import BaseModel, ConfigDict, Field


class Quota(BaseModel):
    """Of one tenant: 0 is no limit, None is what everybody has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stored_bytes: int | None = Field(None, ge=0)
    encodings_per_day: int | None = Field(None, ge=0)
