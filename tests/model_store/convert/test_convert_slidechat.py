"""SlideChat's published files become an installed model: the same one from each layout, every fault named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_slidechat import plain_rows
from safetensors.torch import load_file
from tokenizers import Tokenizer
from toy_slidechat import ADAPTED, ALPHA, MAX_ROWS, RANK, WIDTH, Tensors, ToySlideChat, toy_shapes

from encoders.expected_shapes import expected_shapes
from encoders.pipeline import load_encoders
from encoders.slide_stages.tile_stage import Tiles, TileStage, thinning
from model_store.chat_template import chat_template
from model_store.convert.convert_model import convert_model
from model_store.errors import ModelError
from model_store.fetch.fetch_model import fetch_model
from model_store.fetch.from_store import StoreOrigin
from model_store.installed import InstalledModel, verify_digests
from model_store.manifest import packaged_manifest

OTHERS = ("projector.", "LongNet_encoder.")


@pytest.fixture
def toy(tmp_path: Path) -> ToySlideChat:
    return ToySlideChat(tmp_path / "downloads")


def convert(toy: ToySlideChat, said: list[str] | None = None, quantize: str = "none") -> InstalledModel:
    say = (said if said is not None else []).append
    return convert_model(toy.manifest, toy.folder, toy.folder.parent / "models", toy_shapes(), say, quantize)  # type: ignore[arg-type]


def llm_tensors(model: InstalledModel) -> Tensors:
    return {name: it for file in model.llm_folder.glob("*.safetensors") for name, it in load_file(file).items()}


LAYOUTS: dict[str, Callable[[ToySlideChat], None]] = {
    "trainer's file": lambda toy: toy.write_trainer(),
    "tensors alone": lambda toy: toy.write_trainer(entry=None, file="slidechat.bin"),
    "DeepSpeed's folder": lambda toy: toy.write_trainer(entry="module", file="iter_9.pth/mp_rank_00_model_states.pt"),
    "shards": lambda toy: toy.write_shards(),
    "first stage on the base": lambda toy: (toy.write_trainer(*OTHERS), toy.write_base())[1],
    "folder": lambda toy: toy.write_folder(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_model(toy: ToySlideChat, layout: str) -> None:
    said: list[str] = []
    LAYOUTS[layout](toy)

    model = convert(toy, said)

    found = llm_tensors(model)
    assert found.keys() == toy.served.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in toy.served.items())
    longnet = load_file(model.folder / model.manifest.slide_stage.weights)
    assert all(torch.equal(longnet[name.removeprefix(OTHERS[1])], it) for name, it in toy.part(OTHERS[1]).items())
    assert len(longnet) == len(toy.part(OTHERS[1]))
    conch = load_file(model.folder / model.manifest.first_input.tile_encoder.weights)
    assert all(torch.equal(conch[name], tensor) for name, tensor in toy.conch.items())
    verify_digests(model)
    assert model.manifest.downloads is not None
    assert model.manifest.downloads["llm"].digests == "recorded"
    assert any("attn_pool_caption" in line for line in said), "what is left out is said"
    assert not any("LongNet_encoder" in line for line in said if "left out" in line)


def test_what_is_fetched_from_a_folder_converts(toy: ToySlideChat, tmp_path: Path) -> None:
    toy.write_trainer()
    (toy.folder / "llm" / "README.md").write_text("not wanted")
    fetched = tmp_path / "fetched"

    fetch_model(toy.manifest, fetched, StoreOrigin(str(toy.folder)), lambda _: None)

    toy.folder = fetched
    assert llm_tensors(convert(toy)).keys() == toy.served.keys()
    assert sorted(path.name for path in (fetched / "llm_base").glob("*.json")) == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_an_adapter_is_merged_into_the_base(toy: ToySlideChat) -> None:
    toy.write_folder(adapter=True)
    a, b = toy.factors

    found = llm_tensors(convert(toy))

    expected = toy.served | {ADAPTED: toy.served[ADAPTED] + ALPHA / RANK * b @ a}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0)


def test_what_vllm_reads_beside_the_weights(toy: ToySlideChat) -> None:
    toy.write_trainer()

    folder = convert(toy).llm_folder

    config, ends = (json.loads((folder / name).read_text()) for name in ("config.json", "generation_config.json"))
    assert config["architectures"] == ["SlideQwen2ForConditionalGeneration"]
    assert (config["slide_token_width"], config["max_slide_tokens"], config["mm_hidden_size"]) == (
        WIDTH,
        MAX_ROWS,
        WIDTH,
    )
    assert (config["image_token"], config["image_token_index"]) == ("<|image_pad|>", 3)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    published = ["<|im_end|>", "<|endoftext|>"]  # the stop words of xtuner's qwen_chat
    assert ends["eos_token_id"] == [tokenizer.token_to_id(token) for token in published]


def spoil_extra(toy: ToySlideChat) -> None:
    toy.trained["visual_encoder.weight"] = torch.ones(2)
    toy.write_trainer()


def spoil_missing(name: str) -> Callable[[ToySlideChat], None]:
    def spoil(toy: ToySlideChat) -> None:
        del toy.trained[name]
        toy.write_trainer()

    return spoil


def spoil_shape(toy: ToySlideChat) -> None:
    toy.trained["LongNet_encoder.layers.0.ffn.fc1.weight"] = torch.ones(WIDTH * 4, WIDTH)
    toy.write_trainer()


def spoil_twice(toy: ToySlideChat) -> None:
    toy.write_trainer()
    toy.write_trainer(file="stage1.pth")


def spoil_lora(toy: ToySlideChat) -> None:
    toy.trained["llm.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"] = torch.ones(2, 2)
    toy.write_trainer()


def spoil_pickle(toy: ToySlideChat) -> None:
    torch.save({"state_dict": toy.trained, "message_hub": print}, toy.folder / "llm" / "stage2.pth")


def spoil_half_folder(toy: ToySlideChat) -> None:
    toy.write_folder()
    (toy.folder / "llm" / "LongNet_encoder" / "model.safetensors").unlink()
    (toy.folder / "llm" / "LongNet_encoder").rmdir()


def spoil_base(toy: ToySlideChat) -> None:
    toy.write_trainer()
    (toy.folder / "llm_base" / "tokenizer.json").unlink()


def spoil_placeholder(toy: ToySlideChat) -> None:
    toy.write_trainer()
    path = toy.folder / "llm_base" / "tokenizer.json"
    path.write_text(path.read_text().replace("<|image_pad|>", "<|other|>"))


FAULTS: dict[str, tuple[Callable[[ToySlideChat], None], str]] = {
    "a tensor of no part": (spoil_extra, "'visual_encoder.weight' in stage2.pth has no place"),
    "no projector": (spoil_missing("projector.model.2.bias"), "lacks the tensors 'model.mm_projector.2.bias'"),
    "no language model's layer": (spoil_missing("llm.model.norm.weight"), "lacks the tensors 'model.norm.weight'"),
    "no LongNet": (
        spoil_missing("LongNet_encoder.layer_norm.bias"),
        "slide encoder lacks the tensors 'layer_norm.bias'",
    ),
    "another LongNet": (
        spoil_shape,
        r"LongNet_encoder.layers.0.ffn.fc1.weight' in stage2.pth has the shape \[128, 32\]",
    ),
    "both stages": (spoil_twice, r"several checkpoints \(stage1.pth, stage2.pth\)"),
    "LoRA without its scale": (spoil_lora, "LoRA factors without their scale"),
    "more than tensors": (spoil_pickle, "stage2.pth is damaged, or holds more than tensors"),
    "a folder without LongNet": (spoil_half_folder, "has no LongNet_encoder/; convert the trainer's own file"),
    "nothing": (lambda toy: None, "no checkpoint of SlideChat's trainer"),
    "no tokenizer": (spoil_base, "llm_base/tokenizer.json is missing"),
    "another tokenizer": (spoil_placeholder, "has no token '<|image_pad|>'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_is_installed(toy: ToySlideChat, fault: str) -> None:
    spoil, sentence = FAULTS[fault]
    spoil(toy)

    with pytest.raises(ModelError, match=sentence.replace("|", r"\|")):
        convert(toy)

    assert not list((toy.folder.parent / "models").glob("slidechat"))


def test_other_ways_of_fewer_bits_are_refused(toy: ToySlideChat) -> None:
    toy.manifest = toy.manifest.model_copy(update={"llm": toy.manifest.llm.model_copy(update={"dtype": "bfloat16"})})
    toy.write_trainer()

    with pytest.raises(ModelError, match="in 16 bits or fp8, not awq"):
        convert(toy, quantize="awq")
    assert any(name.endswith("weight_scale") for name in llm_tensors(convert(toy, quantize="fp8")))


def test_a_slide_has_as_many_rows_as_tiles_and_beyond_the_cap_every_so_many(toy: ToySlideChat) -> None:
    toy.write_trainer()
    model = convert(toy)
    # Where tiles are seen alone there is no attention, so no kernel of it is asked for.
    stage = load_encoders(model, "cpu", "flash-attn").stage
    assert isinstance(stage, TileStage)
    longnet = {name.removeprefix(OTHERS[1]): tensor for name, tensor in toy.part(OTHERS[1]).items()}

    for count in (3, 300, MAX_ROWS, 1_000):
        features = np.random.default_rng(count).standard_normal((count, WIDTH), dtype=np.float32)
        rows = stage.rows({"tiles": Tiles(features, np.zeros((count, 2), np.int64), 64, 64)}, lambda: None)

        # As published: pandas' iloc at np.linspace(0, n - 1, cap, dtype=int), from the cap on.
        chosen = np.linspace(0, count - 1, MAX_ROWS, dtype=int) if count >= MAX_ROWS else np.arange(count)
        assert len(set(chosen)) == len(rows) == min(count, MAX_ROWS)
        expected = plain_rows(longnet, torch.from_numpy(features[chosen])).numpy()
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        warned = [it.code for it in thinning(stage.spec, count, stage.inputs)]
        assert warned == (["tiles_thinned"] if count > MAX_ROWS else [])


def test_the_prompt_is_the_published_one(toy: ToySlideChat) -> None:
    """`<image>` is replaced by rows and both sides are tokenised by themselves; a placeholder token splits as well."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def turn(text: str) -> str:
        return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"

    question = "What is seen?\nA. Tumour\nB. No tumour"
    published = turn(f"<image>\n{question}")
    prompt = packaged_manifest("slidechat").prompt
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        chat_template(prompt, "")
    )
    first = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    follow_up = [first, {"role": "assistant", "content": "A"}, {"role": "user", "content": "Why?"}]

    rendered = template.render(messages=[first], add_generation_prompt=True)

    assert rendered == published.replace("<image>", "<|image_pad|>")
    # xtuner ends an answer with its suffix and separator.
    assert template.render(messages=follow_up, add_generation_prompt=True) == f"{rendered}A<|im_end|>\n{turn('Why?')}"
    tokenizer = Tokenizer.from_file(str(toy.folder / "llm_base" / "tokenizer.json"))
    before, after = (tokenizer.encode(piece).ids for piece in published.split("<image>"))
    assert tokenizer.encode(rendered).ids == [*before, tokenizer.token_to_id("<|image_pad|>"), *after]


def test_the_packaged_manifest_is_the_published_model() -> None:
    manifest = packaged_manifest("slidechat")
    shapes = expected_shapes(manifest)

    tiles, slide = (shapes[f"{part}/model.safetensors"] for part in ("tile_encoder", "slide_encoder"))
    assert (len(tiles), sum(np.prod(shape, dtype=int) for shape in tiles.values())) == (164, 87_829_248)
    assert (len(slide), slide["layers.1.ffn.fc1.weight"], slide["layer_norm.weight"]) == (42, (1024, 512), (512,))
    assert manifest.most_rows == min(38_400, manifest.llm.max_model_len - 2_048)
