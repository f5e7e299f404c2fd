"""The hierarchical kind's switches, its golden vector, half precision, and too little memory."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hierarchical_toys import (
    CPU,
    DarkIsNucleus,
    DrawnRegions,
    hierarchical_manifest,
    loaded_networks,
    read_drawn,
    spec_of,
    stage_with_dark_cells,
)
from long_tests import all_or

from encoders.encoder_id import encoder_id
from encoders.errors import UnusableFeatures
from encoders.golden_vector import check_golden, record_golden
from encoders.hierarchical.networks import Networks
from encoders.precomputed.check_features import check_shape
from encoders.slide_stages import hierarchical
from encoders.slide_stages.hierarchical import HierarchicalStage, halve_if_choices_agree
from model_store.contracts.hierarchical import HIERARCHICAL_NETWORKS, Hierarchical
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.manifest import parse_manifest
from model_store.manifest_text import manifest_text

SWITCHES: dict[str, Any] = {
    "variant": "intended",
    "anchor": "another",
    "dissimilar": 16,
    "keep": 3,
    "dtype": "bfloat16",
    "patch_px": 128,
}


SWITCHES_OF_REGIONS: dict[str, Any] = {
    "region_px": 1024,
    "tissue_unit_px": 64,
    "step_level": 1,
    "order": "raster",
    "edge": "white",
}


def test_every_switch_is_part_of_the_encoder_id(toy: InstalledModel) -> None:
    def with_stage(stage: Hierarchical) -> str:
        return encoder_id(replace(toy, manifest=toy.manifest.model_copy(update={"slide_stage": stage})))

    spec = spec_of(toy)
    ids = [encoder_id(toy), with_stage(spec.model_copy(update={"cellvit": changed(spec.cellvit, amp="float16")}))]
    ids += [with_stage(spec.model_copy(update={name: value})) for name, value in SWITCHES.items()]
    ids += [
        with_stage(spec.model_copy(update={"regions": changed(spec.regions, **{name: value})}))
        for name, value in SWITCHES_OF_REGIONS.items()
    ]
    ids += [encoder_id(replace(toy, digests={**toy.digests, file: "0" * 64})) for file in spec.weights_files().values()]
    ids.append(encoder_id(toy, mpp_override=0.5))

    assert len(set(ids)) == len(ids) == 2 + len(SWITCHES) + len(SWITCHES_OF_REGIONS) + len(HIERARCHICAL_NETWORKS) + 1
    networks, own = set(HIERARCHICAL_NETWORKS), set(Hierarchical.model_fields)
    assert own - networks - {"kind", "regions"} == set(SWITCHES), "no switch is forgotten here"
    assert set(type(spec.regions).model_fields) == set(SWITCHES_OF_REGIONS)


def changed(table: Any, **fields: Any) -> Any:
    return table.model_copy(update=fields)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variant": "intended"}, "not defined"),
        ({"keep": 9}, "dissimilar"),
        ({"patch_px": 128}, "256"),
        ({"anchor": "report"}, "first_region"),
    ],
)
def test_what_cannot_be_defended_is_refused_with_its_reason(changes: dict[str, Any], said: str) -> None:
    text = manifest_text(hierarchical_manifest())
    for name, value in changes.items():
        text = "\n".join(f"{name} = {value!r}" if line.startswith(f"{name} =") else line for line in text.split("\n"))

    with pytest.raises(ModelError, match=said):
        parse_manifest(text)


def test_a_manifest_has_no_inputs_for_it_and_tile_features_are_refused(toy: InstalledModel) -> None:
    assert toy.manifest.inputs == {}
    assert toy.manifest.cut == spec_of(toy).regions
    assert "[inputs" not in manifest_text(toy.manifest)
    with pytest.raises(ModelError, match="no tile encoder"):
        _ = toy.manifest.first_input
    with pytest.raises(UnusableFeatures, match="send the slide"):
        check_shape(5, 64, toy.manifest, has_coords=True)
    check_shape(8, 64, toy.manifest, has_coords=False)


def test_its_golden_vector_covers_every_network(toy: InstalledModel) -> None:
    found = check_golden(record_golden(toy, "cpu"), "cpu")

    assert found is not None
    assert found.slide_tokens == 0


def test_half_precision_is_used_where_the_same_pictures_are_chosen(
    toy: InstalledModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hierarchical, "_GATE_PICTURES", 4)
    spec = spec_of(toy).model_copy(update={"dtype": "bfloat16"})
    agreeing, other, untouched = loaded_networks(toy), loaded_networks(toy), loaded_networks(toy)
    monkeypatch.setattr(hierarchical, "_chosen", lambda *_: torch.zeros(1, 4))
    assert halve_if_choices_agree(agreeing, spec)
    choices = iter([torch.zeros(1, 4), torch.ones(1, 4)])
    monkeypatch.setattr(hierarchical, "_chosen", lambda *_: next(choices))
    assert not halve_if_choices_agree(other, spec)

    def dtypes(networks: Networks) -> dict[str, torch.dtype]:
        return {name: next(network.parameters()).dtype for name, network in networks.by_name().items()}

    halved = {"vit256", "vit4k", "conch", "cell_fusion"}
    assert {name for name, dtype in dtypes(agreeing).items() if dtype == torch.bfloat16} == halved
    assert set(dtypes(other).values()) == {torch.float32}
    published = untouched.conch.state_dict()
    assert all(torch.equal(weights, published[name]) for name, weights in other.conch.state_dict().items())
    assert "float32 is used" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "amp"),
    all_or([("bfloat16", "none")], [("bfloat16", "none"), ("float16", "float16"), ("bfloat16", "bfloat16")]),
)
def test_a_slide_in_half_precision_is_about_the_same(toy: InstalledModel, dtype: str, amp: str) -> None:
    spec = spec_of(toy)
    spec = spec.model_copy(update={"regions": spec.regions.model_copy(update={"region_px": 256})})
    halved = spec.model_copy(update={"dtype": dtype, "cellvit": spec.cellvit.model_copy(update={"amp": amp})})
    stages = [HierarchicalStage(it, toy.file, CPU) for it in (spec, halved)]
    if amp == "none":
        for stage in stages:
            stage.encoder._cellvit = DarkIsNucleus(spec.cellvit.embed_dim)  # type: ignore[assignment]
    reader = DrawnRegions(1, spec.regions)

    rows = [stage.encode(read_drawn(stage, reader))["slide_tokens"].astype(np.float32) for stage in stages]

    assert 0 < np.abs(rows[0] - rows[1]).max() < 0.2


def test_on_a_cpu_few_pictures_go_through_at_once(toy: InstalledModel) -> None:
    stage = stage_with_dark_cells(toy)
    seen: list[int] = []
    for network in (stage.encoder._conch, stage.encoder._cellvit):
        compute = network.forward
        network.forward = lambda pixels, compute=compute: seen.append(len(pixels)) or compute(pixels)  # type: ignore[method-assign]

    read_drawn(stage, DrawnRegions(1, stage.spec.regions))

    assert seen == [2, 2, *[1] * stage.spec.kept], "what a layer makes of them stays in what malloc keeps"


def test_too_little_memory_halves_the_passes_and_changes_nothing(
    toy: InstalledModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = stage_with_dark_cells(toy)
    # As many as on a GPU, which is where memory runs out.
    stage.encoder._pass_pictures, stage.encoder._pass_cells = 16, 4
    conch = stage.encoder._conch
    reader, asked = DrawnRegions(2, stage.spec.regions), []

    class Full(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            asked.append(len(pixels))
            if len(pixels) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            found: torch.Tensor = conch(pixels)
            return found

    expected = read_drawn(stage, reader)
    stage.encoder._conch = Full()  # type: ignore[assignment]
    made = read_drawn(stage, reader)

    assert (asked[0], max(asked[-2:])) == (4, 2)
    assert stage.encoder.passes[0] == 2
    np.testing.assert_allclose(made.levels.patch, expected.levels.patch, atol=1e-6)
    assert "does not do" in caplog.text
