"""Features from elsewhere, against what each kind of slide stage takes of them."""

import pytest
from toy_kinds import documented, documented_manifest

from encoders.errors import UnusableFeatures
from encoders.precomputed.check_features import check_shape
from model_store.manifest import Manifest

ALL, POOL = documented_manifest(), documented_manifest(("slide_stage", "longnet-pool"))
MEAN, NONE = documented_manifest(("slide_stage", "mean")), documented_manifest(("slide_stage", "none"))


@pytest.mark.parametrize("manifest", [ALL, POOL, MEAN, NONE])
def test_tile_features_of_the_right_width_are_taken_by_every_kind(manifest: Manifest) -> None:
    check_shape(7, 64, manifest, has_coords=True)

    with pytest.raises(UnusableFeatures, match="are 63 wide; the served model needs 64"):
        check_shape(7, 63, manifest, has_coords=True)


def test_rows_are_taken_where_their_number_is_right() -> None:
    check_shape(8, 96, POOL, has_coords=False)
    with pytest.raises(UnusableFeatures, match=r"are 8 × 96, or zero-padded 8 × 96"):
        check_shape(9, 96, POOL, has_coords=False)

    for rows in (1, 1_500):
        check_shape(rows, 96, ALL, has_coords=False)  # padded: as wide as tile features they could be either
    with pytest.raises(UnusableFeatures, match=r"are 1 to 1500 × 64"):
        check_shape(1_501, 96, ALL, has_coords=False)
    with pytest.raises(UnusableFeatures, match="could be tile features or slide features"):
        check_shape(7, 64, ALL, has_coords=False)


@pytest.mark.parametrize("manifest", [MEAN, NONE])
def test_what_learned_nothing_takes_tile_features_alone(manifest: Manifest) -> None:
    with pytest.raises(UnusableFeatures, match="no coordinates"):
        check_shape(1, 64, manifest, has_coords=False)


@pytest.mark.parametrize("has_coords", [True, False])
def test_a_model_of_several_inputs_takes_none(has_coords: bool) -> None:
    [given] = documented()[0]["inputs"].values()
    two = documented_manifest(("slide_stage", "mean"), inputs={"fine": given, "coarse": given})

    with pytest.raises(UnusableFeatures, match="send the slide itself"):
        check_shape(7, 64, two, has_coords=has_coords)
