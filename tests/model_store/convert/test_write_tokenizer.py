"""The published tokenizer keeps its ids and gets one token more, also when it is SentencePiece alone."""

import json
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from toy_checkpoint import Toy, toy_manifest
from vllm_server import VLLM_PYTHON

from model_store.convert.write_tokenizer import write_tokenizer
from model_store.errors import ModelError

TRAIN = """
import sys, sentencepiece
sentences = [f"which grade has this tissue number {n}, and why?\\n" for n in range(200)]
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(sentences), model_prefix=sys.argv[1], vocab_size=300, model_type="bpe", byte_fallback=True,
    pad_id=-1, unk_id=0, bos_id=1, eos_id=2, minloglevel=2,
    normalization_rule_name="identity", remove_extra_whitespaces=False,  # as Llama's
)
"""
COMPARE = """
import json, sys, sentencepiece
from transformers import AutoTokenizer
folder, published, text = sys.argv[1:]
served = AutoTokenizer.from_pretrained(folder)
pieces = sentencepiece.SentencePieceProcessor(model_file=published)
before, after = text.split("<image>")
json.dump({
    "served": served(text).input_ids,
    "expected": [1, *pieces.encode(before), served.convert_tokens_to_ids("<image>"), *pieces.encode(after[1:])],
    "image": served("<image>", add_special_tokens=False).input_ids,
    "vocabulary": len(pieces),
}, sys.stdout)
"""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    Toy(tmp_path, toy_manifest()).write_tokenizer("llm")
    return tmp_path / "llm"


def test_pieces_keep_their_ids_and_the_placeholder_comes_behind_them(published: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    before = Tokenizer.from_file(str(published / "tokenizer.json"))
    size = before.get_vocab_size()

    placeholder_id = write_tokenizer(published, tmp_path / "served", "<image>", size)

    served = Tokenizer.from_file(str(tmp_path / "served/tokenizer.json"))
    assert placeholder_id == size == served.token_to_id("<image>")
    assert served.encode("a <image> b").ids.count(size) == 1
    text = "Which grade has this tissue?\n"
    assert served.encode(text).ids == before.encode(text).ids


def test_a_token_that_was_added_before_is_not_overwritten(published: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (published / "added_tokens.json").write_text(json.dumps({"<pad>": 400}))

    assert write_tokenizer(published, tmp_path / "served", "<image>", 400) == 401


def test_a_tokenizer_that_has_the_placeholder_is_refused(published: Path, tmp_path: Path) -> None:
    (published / "added_tokens.json").write_text(json.dumps({"<image>": 400}))

    with pytest.raises(ModelError, match="'<image>' already"):
        write_tokenizer(published, tmp_path, "<image>", 400)


def test_a_missing_vocabulary_is_named(published: Path, tmp_path: Path) -> None:
    (published / "tokenizer.json").unlink()

    with pytest.raises(ModelError, match=r"no tokenizer\.model or tokenizer\.json"):
        write_tokenizer(published, tmp_path, "<image>", 400)


@pytest.mark.skipif(not VLLM_PYTHON.exists(), reason="vLLM's environment .venv-vllm is not built")
@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece_alone_gives_the_ids_of_sentencepiece(tmp_path: Path, legacy: bool) -> None:
    source, served = tmp_path / "published", tmp_path / "served"
    source.mkdir()
    served.mkdir()
    subprocess.run([VLLM_PYTHON, "-c", TRAIN, source / "tokenizer"], check=True, capture_output=True)
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>"}
    (source / "tokenizer_config.json").write_text(json.dumps({**config, "unk_token": "<unk>", "add_bos_token": True}))

    placeholder_id = write_tokenizer(source, served, "<image>", 300)

    # One space more than the reference's text: see the chat template.
    command = [
        VLLM_PYTHON,
        "-c",
        COMPARE,
        served,
        source / "tokenizer.model",
        "USER: <image> \nwhich grade? ASSISTANT:",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["served"] == found["expected"]
    assert found["image"] == [placeholder_id] == [found["vocabulary"]]
