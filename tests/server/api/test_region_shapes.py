"""What the document says of a drawn region, beside what is taken."""

from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from server.api.region_shapes import RegionShape
from server.api.routes.regions import RegionRequest

BOX = {"x": 0, "y": 0, "width": 9, "height": 9}
CORNERS = [[0, 0], [9, 0], [9, 9]]


# A shape by itself (in a question), and one to draw, which may name a model beside it.
@pytest.mark.parametrize("body", [RegionShape, RegionRequest])
@pytest.mark.parametrize("shape", [{"rectangle": BOX}, {"polygon": CORNERS}])
def test_one_of_both_is_a_region(body: type[RegionShape], shape: dict[str, Any]) -> None:
    assert jsonschema_rs.is_valid(body.model_json_schema(), shape)
    assert body.model_validate(shape)


@pytest.mark.parametrize("body", [RegionShape, RegionRequest])
@pytest.mark.parametrize("shape", [{}, {"rectangle": None}, {"polygon": None}, {"rectangle": BOX, "polygon": CORNERS}])
def test_what_is_refused_is_not_in_the_document(body: type[RegionShape], shape: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(body.model_json_schema(), shape)
    with pytest.raises(ValidationError):
        body.model_validate(shape)


def test_a_model_beside_the_shape_changes_nothing() -> None:
    document = RegionRequest.model_json_schema()
    assert jsonschema_rs.is_valid(document, {"rectangle": BOX, "model": "demo"})
    assert not jsonschema_rs.is_valid(document, {"model": "demo"})
