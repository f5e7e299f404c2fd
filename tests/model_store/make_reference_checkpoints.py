"""Makes `reference_checkpoints/` with LLaVA's own code: its train.py trains and saves, its builder.py loads again.

    python make_reference_checkpoints.py <checkout of haotian-liu/LLaVA> <folder to fill>

Run by a Python that has the reference's packages; reference_checkpoints/README.md has their versions. What is not the
reference's here: a toy Llama, a toy CLIP, a small text to train on, DeepSpeed's names without DeepSpeed, and the two
changes by which WSI-LLaVA feeds features to LLaVA: the vision tower gives back what it gets, and the data set yields
tensors.
"""

import json
import os
import re
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import sentencepiece
import torch
import transformers
from safetensors.torch import save_file

HIDDEN, INNER, LAYERS, HEADS = 64, 96, 2, 2
# As tests/support/untrained_model.py: slide tokens of 96 numbers, padded with zeros to the projector's width.
SLIDE_TOKENS, WIDTH, PROJECTOR_WIDTH = 32, 96, 128
TOWER = "openai/clip-vit-toy"  # the reference takes a tower by its name's beginning, and as a folder
MAX_NEW_TOKENS = 16
QUESTIONS = ("Which grade?", "Is there necrosis?", "What is the type of the tumour?")
ANSWERS = (
    ("Grade 2, with 3 mitoses per field.", "No necrosis is seen.", "The tumour is a carcinoma."),
    ("It is grade 1, without mitoses.", "Yes, in the glands.", "A lesion of the stroma, benign."),
)
KEPT = {
    "base": ("config.json", "generation_config.json", "pytorch_model.bin", "tokenizer.model", "*token*.json"),
    "merged": ("config.json", "generation_config.json", "pytorch_model*", "tokenizer.model", "*token*.json"),
    "lora": ("config.json", "adapter_config.json", "adapter_model.*", "non_lora_trainables.bin"),
    "projector": ("config.json", "mm_projector.bin"),
}
# The options of LLaVA's own scripts (scripts/v1_5/*.sh) as far as they fit a toy on a CPU.
COMMON = (
    f"--version v1 --data_path none --vision_tower {TOWER} --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 "
    "--mm_use_im_start_end False --mm_use_im_patch_token False --model_max_length 2048 --use_cpu True --seed 0 "
    "--per_device_train_batch_size 6 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine "
    "--save_strategy no --save_safetensors False --report_to none --logging_steps 50 --disable_tqdm True"
)
STAGES = {
    "merged": "--model_name_or_path llama --learning_rate 3e-3 --max_steps 200",
    "projector": "--model_name_or_path base --tune_mm_mlp_adapter True --learning_rate 3e-3 --max_steps 300",
    "lora": "--model_name_or_path merged --lora_enable True --lora_r 4 --lora_alpha 8 --mm_projector_lr 2e-3 "
    "--learning_rate 1e-2 --max_steps 200",
}
BASES = {"merged": None, "projector": "base", "lora": "merged"}


def slide_features(seed: int) -> torch.Tensor:
    """Slide tokens [SLIDE_TOKENS, PROJECTOR_WIDTH] in fp16, zeros from WIDTH on."""
    rows = torch.randn(SLIDE_TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.pad(rows, (0, PROJECTOR_WIDTH - WIDTH)).half()


def train_pieces() -> None:
    """A SentencePiece model with the settings of Llama's; few pieces, so that characters and bytes occur."""
    from llava.conversation import conv_templates

    texts = [conv_templates[name].system for name in ("llava_v1", "vicuna_v1")]
    texts += ["USER: ASSISTANT:", *QUESTIONS, *ANSWERS[0], *ANSWERS[1]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20),
        model_prefix="pieces",
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )


def write_llama() -> None:
    """Random weights, and a slow tokenizer that is not legacy beside them, as Vicuna's is."""
    train_pieces()
    tokenizer = transformers.LlamaTokenizer("pieces.model", legacy=False, pad_token="<unk>")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        rms_norm_eps=1e-5,
        initializer_range=0.1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained("llama", safe_serialization=False)
    tokenizer.save_pretrained("llama")


def write_base() -> None:
    """What Vicuna is to LLaVA, a Llama in fp16 that can speak: the merged checkpoint's, without its projector."""
    merged = transformers.LlamaForCausalLM.from_pretrained("merged")
    config = transformers.LlamaConfig.from_pretrained("llama")
    base = transformers.LlamaForCausalLM(config)
    base.load_state_dict(merged.state_dict())
    base.half().save_pretrained("base", safe_serialization=False)
    transformers.LlamaTokenizer.from_pretrained("llama").save_pretrained("base")


def write_tower() -> None:
    """A CLIP as wide as the projector's input."""
    config = transformers.CLIPVisionConfig(
        hidden_size=PROJECTOR_WIDTH,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=4,
        patch_size=2,
    )
    torch.manual_seed(1)
    transformers.CLIPVisionModel(config).save_pretrained(TOWER)
    transformers.CLIPImageProcessor().save_pretrained(TOWER)


def name_deepspeed() -> None:
    """What maybe_zero_3 imports before it asks whether a parameter is DeepSpeed's; none is."""
    for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)
    sys.modules["deepspeed"].zero = None
    partition = ModuleType("deepspeed.runtime.zero.partition_parameters")
    partition.ZeroParamStatus = None
    sys.modules[partition.__name__] = partition


def examples(tokenizer: transformers.PreTrainedTokenizer, by_slide: tuple[tuple[str, ...], ...]) -> list[dict]:
    """Each question about each of two slides, prepared by the reference."""
    from llava.train.train import preprocess

    rows = []
    for seed, answers in enumerate(by_slide):
        for question, answer in zip(QUESTIONS, answers, strict=True):
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
            ids = preprocess([turns], tokenizer, has_image=True)
            one = {"input_ids": ids["input_ids"][0], "labels": ids["labels"][0], "image": slide_features(seed).float()}
            assert (one["labels"] >= 0).any(), "the reference masked the whole answer"
            rows.append(one)
    return rows


def train(stage: str) -> None:
    """train.py as from the command line; its end saves."""
    from llava.train import train as reference

    def data_module(tokenizer: transformers.PreTrainedTokenizer, data_args: object) -> dict:
        collator = reference.DataCollatorForSupervisedDataset(tokenizer=tokenizer)
        # Adapter and projector learn the other slide's answers, so that the base alone gives none of them.
        by_slide = ANSWERS[::-1] if stage == "lora" else ANSWERS
        return {"train_dataset": examples(tokenizer, by_slide), "eval_dataset": None, "data_collator": collator}

    reference.make_supervised_data_module = data_module
    sys.argv = ["train.py", *COMMON.split(), *STAGES[stage].split(), "--output_dir", stage]
    reference.train()


def load(stage: str) -> tuple:
    """The checkpoint as builder.py loads it, with fp32 where it says fp16."""
    from llava.model import builder

    builder.torch = SimpleNamespace(**{**vars(torch), "float16": torch.float32})
    tokenizer, model, _, _ = builder.load_pretrained_model(stage, BASES[stage], f"llava-{stage}", device="cpu")
    return tokenizer, model.eval()


def answer(tokenizer: transformers.PreTrainedTokenizer, model: torch.nn.Module, question: str, seed: int) -> dict:
    """Greedy tokens in the way of eval/run_llava.py."""
    from llava.constants import IMAGE_TOKEN_INDEX
    from llava.conversation import conv_templates
    from llava.mm_utils import tokenizer_image_token

    conversation = conv_templates["llava_v1"].copy()
    conversation.append_message(conversation.roles[0], f"<image>\n{question}")
    conversation.append_message(conversation.roles[1], None)
    ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")
    new = model.generate(
        ids[None],
        images=slide_features(seed).float()[None],
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        use_cache=True,
        pad_token_id=0,
    )
    # transformers 4.37 puts a BOS in place of the embeddings that it was given; it is neither read nor generated.
    start, *generated = new[0].tolist()
    assert start == tokenizer.bos_token_id
    return {
        "slide": f"slide-{seed}.pt",
        "question": question,
        "prompt_ids": ids.tolist(),
        "token_ids": generated,
        "text": tokenizer.decode(generated, skip_special_tokens=True).strip(),
    }


def make() -> tuple[dict, dict]:
    """Every checkpoint in the working folder; the answers by stage, and the weights that the adapter changed."""
    write_tower()
    write_llama()
    answers = {}
    for stage in STAGES:
        train(stage)
        if stage == "merged":
            write_base()
        tokenizer, model = load(stage)
        answers[stage] = [answer(tokenizer, model, question, seed) for seed in (0, 1) for question in QUESTIONS]
    layers = re.compile(r"model\.layers\..*_proj\.weight")
    return answers, {name: tensor for name, tensor in model.state_dict().items() if layers.match(name)}


def keep(stage: str, folder: Path) -> None:
    """The files of a checkpoint without the trainer's own state."""
    (folder / stage).mkdir(parents=True, exist_ok=True)
    for pattern in KEPT[stage]:
        for path in Path(stage).glob(pattern):
            shutil.copyfile(path, folder / stage / path.name)


def main() -> None:
    """Works in `<folder>.work`, so that only relative names get into the checkpoints."""
    reference, folder = (Path(argument).resolve() for argument in sys.argv[1:3])
    sys.path.insert(0, str(reference))
    work = folder.with_suffix(".work")
    work.mkdir(parents=True)
    os.chdir(work)
    from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

    CLIPVisionTower.forward = lambda self, features: features
    name_deepspeed()
    answers, changed = make()
    for name in KEPT:
        keep(name, folder)
    for seed in (0, 1):
        torch.save(slide_features(seed)[None], folder / f"slide-{seed}.pt")
    save_file(changed, folder / "lora_merged_by_reference.safetensors")
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
