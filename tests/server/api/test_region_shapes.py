"""What the document says of a drawn region, beside what is taken."""

from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from server.api.region_shapes import RegionShape

BOX = {"x": 0, "y": 0, "width": 9, "height": 9}
CORNERS = [[0, 0], [9, 0], [9, 9]]


@pytest.mark.parametrize("shape", [{"rectangle": BOX}, {"polygon": CORNERS}])
def test_one_of_both_is_a_region(shape: dict[str, Any]) -> None:
    assert jsonschema_rs.is_valid(RegionShape.model_json_schema(), shape)
    assert RegionShape.model_validate(shape)


@pytest.mark.parametrize("shape", [{}, {"rectangle": None}, {"polygon": None}, {"rectangle": BOX, "polygon": CORNERS}])
def test_what_is_refused_is_not_in_the_document(shape: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(RegionShape.model_json_schema(), shape)
    with pytest.raises(ValidationError):
        RegionShape.model_validate(shape)
