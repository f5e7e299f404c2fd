"""`eyepiece eval-honesty`: whether a model's answers turn with the wording, and what it says where it knows nothing.

All through the HTTP API. Other runs' documents stand beside it: a control's, or the model before.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from evaluation.honesty import HonestDialogue, plan_honesty
from evaluation.honesty_score import (
    HonestAnswer,
    asked_texts,
    honest_rows,
    honesty_document,
    honesty_text,
    texts_document,
    texts_text,
)
from server.commands.api_client import ApiClient
from server.commands.eval_demo import QUESTIONS_AT_ONCE, EvalOptions, answer_patiently, examined_server
from server.commands.eval_slides import ready_slides
from server.commands.outcome import CommandError, ExitCode

_WORST_SHOWN = 12


@dataclass(frozen=True)
class Beside:
    """Another run: what to call it, and the document that `--json` wrote of it."""

    name: str
    path: Path

    @classmethod
    def parsed(cls, text: str) -> "Beside":
        """`NAME=FILE`.

        Raises:
            CommandError: it is something else, or there is no such file.
        """
        name, separator, path = text.partition("=")
        if not (name and separator and Path(path).is_file()):
            raise CommandError(f"--beside takes NAME=FILE, a document that --json wrote, not {text!r}.", ExitCode.USAGE)
        return cls(name, Path(path))

    def shares(self) -> dict[str, float]:
        """By row, 0 … 1.

        Raises:
            CommandError: the file is no such document.
        """
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"]
            return {row["row"]: row["right"] / row["asked"] for row in rows if row["asked"]}
        except (ValueError, KeyError, TypeError):
            raise CommandError(f"{self.path} is no document of eval-honesty.", ExitCode.USAGE) from None


def eval_honesty(options: EvalOptions, beside: Sequence[Beside] = ()) -> None:
    """The command: prints the rows, writes the document.

    Raises:
        CommandError: the server refused something, or a row is not reached.
    """
    others = [(one.name, one.shares()) for one in beside]
    started, dialogues = time.monotonic(), plan_honesty(options.slides, options.first_seed)
    with examined_server(options) as client:
        answers = ask_dialogues(client, dialogues)
    rows = honest_rows(answers)
    texts = asked_texts(answers)
    print(honesty_text(rows, others))
    if worst := texts_text(texts, _WORST_SHOWN):
        print(f"Words that got the fewest right answers (--json has all):\n{worst}")
    print(
        f"{len(answers)} questions about {options.slides} slides, seeds from {options.first_seed} on, in "
        f"{time.monotonic() - started:.0f} s."
    )
    if options.json_path is not None:
        options.json_path.write_text(
            json.dumps({"rows": honesty_document(rows), "texts": texts_document(texts)}, indent=2) + "\n"
        )
    if missed := [row.name for row in rows if not row.is_met]:
        raise CommandError(f"Not reached: {'; '.join(missed)}.", ExitCode.FAILED)


def ask_dialogues(client: ApiClient, dialogues: Sequence[HonestDialogue]) -> list[HonestAnswer]:
    """Every turn of every dialogue, about each slide from when it is ready.

    Raises:
        CommandError: a slide failed, or a question was refused.
    """
    specimens = list(dict.fromkeys(dialogue.specimen for dialogue in dialogues))
    answers: list[HonestAnswer] = []
    with (
        tempfile.TemporaryDirectory(prefix="eyepiece-eval-") as folder,
        ThreadPoolExecutor(QUESTIONS_AT_ONCE) as threads,
    ):
        for slide in ready_slides(client, specimens, Path(folder)):
            asked = [dialogue for dialogue in dialogues if dialogue.specimen == slide.specimen]
            for found in threads.map(
                lambda dialogue, slide=slide: ask_dialogue(client, slide.slide_id, dialogue), asked
            ):
                answers += found
    return answers


def ask_dialogue(client: ApiClient, slide_id: str, dialogue: HonestDialogue) -> list[HonestAnswer]:
    """Turn by turn, each answer going into the next turn's conversation.

    Raises:
        CommandError: a question was refused.
    """
    answers: list[HonestAnswer] = []
    conversation: dict[str, str] = {}
    for turn, question in enumerate(dialogue.questions, start=1):
        done = answer_patiently(client, slide_id, {"question": question.text, **conversation})
        conversation = {"conversation_id": done["conversation_id"]}
        answers.append(HonestAnswer(dialogue, turn, done["answer"]))
    return answers
