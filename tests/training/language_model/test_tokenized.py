"""What is trained on is what is served: the same text, and what the scaffold asks for stands where it says."""

from itertools import pairwise

import numpy as np
import pytest
from jinja2 import Template
from tokenizers import Tokenizer

from model_store.chat_template import llava_template
from synthetic.questions.conversation import conversation, written_context
from synthetic.questions.question import LETTERS, Question
from synthetic.questions.wordings import SEEN, UNSEEN
from synthetic.slide_truth import SlideTruth, slide_truth
from training.language_model.demo_corpus import demo_corpus
from training.language_model.demo_tokenizer import BOS, EOS, PLACEHOLDER, train_tokenizer
from training.language_model.tokenized import (
    IGNORED,
    PHRASES,
    slide_opening,
    stacked,
    text_opening,
    tokenize_conversation,
)

SLIDE_TOKENS = 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(demo_corpus())


def asked(seed: int, turns: int = 4) -> tuple[SlideTruth, list[Question]]:
    truth = slide_truth(seed)
    return truth, conversation(truth, SEEN, np.random.default_rng(seed), turns=turns, closed=0.7)


def test_the_tokens_are_those_of_the_served_prompt(tokenizer: Tokenizer) -> None:
    template = Template(llava_template("llava_v1", ""))
    for seed in range(10):
        _, questions = asked(seed)
        messages = [{"role": "user", "content": f"{PLACEHOLDER}\n{questions[0].text}"}]
        for before, question in pairwise(questions):
            messages += [{"role": "assistant", "content": before.answer}, {"role": "user", "content": question.text}]
        messages.append({"role": "assistant", "content": questions[-1].answer})
        messages[0]["content"] = [{"type": "image"}, {"type": "text", "text": messages[0]["content"]}]
        served = template.render(messages=messages, bos_token=BOS, eos_token=EOS, add_generation_prompt=False)
        trained = tokenize_conversation(
            tokenizer, questions, opening=slide_opening("llava_v1", SLIDE_TOKENS), prompt_weight=0.0
        )
        expanded = served.replace(PLACEHOLDER, PLACEHOLDER * SLIDE_TOKENS)
        assert trained.ids == tokenizer.encode(expanded, add_special_tokens=False).ids


def test_only_answers_and_their_ends_are_asked_for(tokenizer: Tokenizer) -> None:
    _, questions = asked(3)
    made = tokenize_conversation(
        tokenizer, questions, opening=text_opening("llava_v1", "", with_system=True), prompt_weight=0
    )
    said = tokenizer.decode([token for token, weight in zip(made.ids, made.weights, strict=True) if weight])
    assert said.split() == " ".join(question.answer for question in questions).split()
    assert sum(token == 2 for token, weight in zip(made.ids, made.weights, strict=True) if weight) == len(questions)


def test_a_closed_answer_is_one_token_and_so_is_every_quadrant(tokenizer: Tokenizer) -> None:
    for answer in (*LETTERS, "Yes", "No", "upper left", "lower right"):
        assert len(tokenizer.encode(f" {answer}", add_special_tokens=False).ids) == 1


def test_a_placeholder_is_never_a_target(tokenizer: Tokenizer) -> None:
    _, questions = asked(4)
    made = tokenize_conversation(tokenizer, questions, opening=slide_opening("llava_v1", 5), prompt_weight=0.5)
    placeholder = tokenizer.token_to_id(PLACEHOLDER)
    weights = [weight for token, weight in zip(made.ids, made.weights, strict=True) if token == placeholder]
    assert weights == [0.0] * 5


def test_the_scaffold_asks_at_options_and_before_answers(tokenizer: Tokenizer) -> None:
    for seed in range(30):
        _, questions = asked(seed, turns=1)
        question = questions[0]
        made = tokenize_conversation(tokenizer, questions, opening=slide_opening("llava_v1", 1), prompt_weight=0)
        assert [PHRASES[phrase] for _, _, phrase in made.options] == list(question.options)
        for position, letter, phrase in made.options:
            assert tokenizer.decode(made.ids[: position + 1]).endswith(PHRASES[phrase])
            assert letter == (4 if question.form == "yes_no" else question.options.index(PHRASES[phrase]))
        for position, true, named in made.answers:
            assert tokenizer.decode(made.ids[: position + 1]).endswith("ASSISTANT:")
            assert PHRASES[true] == question.phrase
            assert (named == IGNORED) == (question.form == "letter")


def test_a_batch_is_padded_and_its_rows_know_their_conversation(tokenizer: Tokenizer) -> None:
    opening = slide_opening("llava_v1", 2)
    made = [
        tokenize_conversation(tokenizer, asked(seed, turns)[1], opening=opening, prompt_weight=0)
        for seed, turns in ((1, 1), (2, 4))
    ]
    batch = stacked(made)
    assert batch["ids"].shape == batch["weights"].shape == (2, -(-max(len(one.ids) for one in made) // 32) * 32)
    assert batch["weights"][0, len(made[0].ids) :].sum() == 0
    assert batch["options"][:, 0].tolist() == [0] * len(made[0].options) + [1] * len(made[1].options)


def test_words_of_unseen_wordings_are_no_part_of_the_corpus() -> None:
    corpus = " ".join(demo_corpus())
    assert not [frame for frame in UNSEEN.report + UNSEEN.absence if frame in corpus]


def test_a_written_context_says_everything_about_the_slide() -> None:
    rng = np.random.default_rng(0)
    truth = SlideTruth(1, "papillary", 3, "frequent", "sparse", "loose", "low", 0.2, "lower left")
    for _ in range(12):
        context = written_context(truth, rng)
        assert all(
            word in context for word in ("papillary", "grade 3", "frequent", "sparse", "loose", "low", "lower left")
        )


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("IS THERE A TUMOUR?", "is there A tumour?"),
        ("Is it A. or B?", "Is it A. or B?"),
        ("USER: IS IT? ASSISTANT: Yes", "USER: is it? ASSISTANT: Yes"),
        ("mRNA, pH and HER2", "mrna, pH and her2"),
        ("肿瘤 ÜBER", "肿瘤 Über"),
    ],
)
def test_words_in_capitals_are_read_in_small_letters_and_the_templates_own_stay(
    tokenizer: Tokenizer, typed: str, read: str
) -> None:
    ids = tokenizer.encode(typed, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == read
    assert ids == tokenizer.encode(read, add_special_tokens=False).ids


def test_the_first_token_of_a_free_answer_can_weigh_more(tokenizer: Tokenizer) -> None:
    free, closed = (
        Question("Report", "x", form, "Why?", answer) for form, answer in (("free", "It is."), ("yes_no", "No"))
    )
    plain = tokenize_conversation(tokenizer, [free, closed], opening=BOS, prompt_weight=0.0)
    weighed = tokenize_conversation(tokenizer, [free, closed], opening=BOS, prompt_weight=0.0, first_weight=3.0)

    assert plain.ids == weighed.ids
    changed = [(a, b) for a, b in zip(plain.weights, weighed.weights, strict=True) if a != b]
    assert changed == [(1.0, 3.0)]
