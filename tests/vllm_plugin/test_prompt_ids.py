"""The prompt that vLLM runs has the ids of LLaVA's own tokenisation: both modes of the tokenizer, both templates.

Messages are made by the server's own functions, the folder by our converter, and the ids come back over HTTP. The suite
serves the older mode here (the newer one has tests/end_to_end/test_reference_answers.py); `make vllm-variants` both.
"""

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from long_tests import all_or
from toy_checkpoint import Toy, llama_tensors, toy_manifest
from vllm_requests import ONE_REPLY_WITH_IDS, body_from_the_server, npy, slide_tokens
from vllm_server import VllmServer, running_vllm

from model_store.contracts.prompt import LlavaPrompt, PromptTemplate
from model_store.convert.convert_llm import LlmSources, convert_llm
from model_store.convert.llava_checkpoint import find_checkpoint
from model_store.manifest import Manifest
from server.asking.control_text import ControlText
from server.asking.conversations import Conversation, Turn
from server.asking.language_model import Sampling
from server.asking.questions import conversation_messages, question_text
from server.embeddings.slide_inputs import SlideInput
from server.slides.slide_record import now

pytestmark = pytest.mark.vllm

HERE = Path(__file__).parent
SLIDE_TOKENS = 5
HUMAN = {"llava_v1": "human", "vicuna_v1": "user"}
QUESTIONS = (
    "What is the histological type?",
    "\nWhich grade?",
    "\n\nWhich grade?\n",
    " Which grade?",
    "   glands:  tubules? ",
    "\tstroma?",
    "3 mitoses per 10 fields?",
    "40%",
    "(yes!)",
    "...",
    "'s",
    "\N{LOWER ONE EIGHTH BLOCK}The slide",
    "The\N{LOWER ONE EIGHTH BLOCK}slide",
    "组织学类型是什么？",
    "Größe der Drüsen in µm?",
    "какова степень?",
    "\N{MICROSCOPE}",
    "USER: ASSISTANT:",
    "<0x0A>",
    "x",
)
CONVERSATIONS = [
    *([question] for question in QUESTIONS),
    ["Which grade?", "Grade 2.", "Why?"],
    ["Which grade?", "Grade 2, with\n3 mitoses.\n\n- yes", " and\nwhy?", "是", "\nnecrosis?", "No", "3?"],
]


@dataclass(frozen=True)
class Served:
    """A server, the pieces it must agree with, and how the reference reads them."""

    vllm: VllmServer
    pieces: Path
    legacy: bool
    template: PromptTemplate
    row_id: int


LEGACY = pytest.param((None, True, "vicuna_v1"), id="legacy left out, vicuna_v1")
NOT_LEGACY = pytest.param((False, False, "llava_v1"), id="legacy false, llava_v1")


@pytest.fixture(scope="module", params=all_or([LEGACY], [LEGACY, NOT_LEGACY]))
def served(
    request: pytest.FixtureRequest, vllm_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A toy with a SentencePiece tokenizer, converted and served; transformers 4.37 took `legacy` left out for true."""
    said, legacy, template = request.param
    scratch = tmp_path_factory.mktemp("prompt-ids")
    manifest = toy_manifest()
    manifest = manifest.model_copy(update={"prompt": LlavaPrompt(kind="llava", template=template)})
    folder, pieces = served_folder(scratch, manifest, said, vllm_python), scratch / "llm/tokenizer.model"
    assert json.loads((folder / "config.json").read_text())["image_token_index"] == piece_count(pieces, vllm_python)
    with running_vllm(folder, "toy", scratch) as vllm:
        yield Served(vllm, pieces, legacy, template, row_id=0)  # the placeholder is no word of the vocabulary


def served_folder(scratch: Path, manifest: Manifest, legacy: bool | None, vllm_python: Path) -> Path:
    """A merged checkpoint as LLaVA publishes it, with `tokenizer.model` alone, through our converter."""
    toy, llm = Toy(scratch, manifest), scratch / "llm"
    llm.mkdir()
    subprocess.run([vllm_python, HERE / "train_pieces.py", llm], check=True, capture_output=True)
    toy.vocabulary = piece_count(llm / "tokenizer.model", vllm_python)
    toy.config["vocab_size"] = toy.vocabulary
    toy.final = llama_tensors(toy.vocabulary) | toy.projector
    toy.write_merged(shards=1)
    (llm / "tokenizer.json").unlink()
    config: dict[str, Any] = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
    toy.write_json("llm/tokenizer_config.json", config if legacy is None else {**config, "legacy": legacy})
    (scratch / "served").mkdir()
    convert_llm(LlmSources(find_checkpoint(llm, llm)), manifest, scratch / "served", print)
    return scratch / "served"


def piece_count(pieces: Path, vllm_python: Path) -> int:
    script = "import sys, sentencepiece; print(len(sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])))"
    return int(subprocess.run([vllm_python, "-c", script, pieces], check=True, capture_output=True, text=True).stdout)


def reference_ids(served: Served, conversations: list[list[str]], vllm_python: Path) -> list[list[int]]:
    """The reference's ids, its sentinel replaced by one id for each row of the slide."""
    request = {"pieces": str(served.pieces), "legacy": served.legacy, "human": HUMAN[served.template]}
    run = subprocess.run(
        [vllm_python, HERE / "reference_prompt_ids.py"],
        input=json.dumps({**request, "conversations": conversations}),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    slide = [served.row_id] * SLIDE_TOKENS
    return [[part for one in ids for part in (slide if one == -200 else [one])] for ids in json.loads(run.stdout)]


def body_of_the_last(texts: list[str], slide: SlideInput) -> dict[str, Any]:
    """What the API would send to vLLM for the last question of a conversation."""
    *earlier, question = texts
    turns = [
        Turn(question=it, answer=answer, created_at=now()) for it, answer in zip(*[iter(earlier)] * 2, strict=True)
    ]
    conversation = Conversation(id="c", slide_id="s", created_at=now(), turns=tuple(turns))
    messages = conversation_messages(slide, conversation, question_text(question, 8_000, ControlText()), ControlText())
    return body_from_the_server(messages, Sampling(1, 0.0))


def test_the_ids_of_every_prompt_are_the_references(served: Served, vllm_python: Path) -> None:
    slide = SlideInput(npy(slide_tokens(SLIDE_TOKENS, 96)), "a" * 64, SLIDE_TOKENS, "route")
    bodies = [body_of_the_last(texts, slide) for texts in CONVERSATIONS]

    found = [served.vllm.post("/v1/chat/completions", {**body, **ONE_REPLY_WITH_IDS}) for body in bodies]

    ids = [answer.raise_for_status().json()["prompt_token_ids"] for answer in found]
    expected = reference_ids(served, CONVERSATIONS, vllm_python)
    wrong = [texts for texts, mine, theirs in zip(CONVERSATIONS, ids, expected, strict=True) if mine != theirs]
    assert wrong == []


def test_a_template_without_its_space_would_be_noticed(served: Served, vllm_python: Path) -> None:
    """The reference tells the two modes apart, so the test above is one."""
    other = dataclasses.replace(served, legacy=not served.legacy)

    assert reference_ids(served, CONVERSATIONS[-1:], vllm_python) != reference_ids(
        other, CONVERSATIONS[-1:], vllm_python
    )
