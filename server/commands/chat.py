"""`eyepiece chat`: a conversation about a slide in the terminal, or from a script's standard input.

a line → a question, whose answer streams, or a command that begins with a slash
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from server.commands.api_client import ApiClient
from server.commands.ask import Question, print_doubts, scope_line, stream_answer
from server.commands.evidence import evidence_text
from server.commands.find_slide import find_slide
from server.commands.outcome import CommandError, ExitCode
from server.commands.slides import slide_text
from server.commands.terminal import argument_text, print_json_line, printable

VERDICTS: Final = ("agree", "disagree", "unsure")
_HELP: Final = """\
/new                     begin a new conversation
/model [NAME]            ask another model; without a name, which there are
/slide [SLIDE]           go on with another slide; without one, what this is
/region [REGION]         ask about a region: its id, x,y,width,height in level-0 pixels, or slide
/evidence [CELL]         on which tissue the last answer rests; of a cell, which part of it
/feedback VERDICT [WHY]  agree, disagree or unsure with the last answer
/quit                    end (or Ctrl-D); Ctrl-C stops an answer"""


@dataclass(frozen=True)
class ChatOptions:
    """Which slide, and with what to begin; `is_spoken` when a person sits there and not a script."""

    slide: str
    model: str | None = None
    conversation_id: str | None = None
    as_json: bool = False
    is_spoken: bool = False


def chat(client: ApiClient, options: ChatOptions, lines: Iterator[str]) -> None:
    """The command: takes lines until `/quit` or their end. A person is told what went wrong and goes on; a script ends
    there, because what follows would be asked without the turn that failed.

    Raises:
        CommandError: no slide is meant, or a script's line failed.
    """
    talk = _Talk(client, options)
    talk.greet()
    while True:
        try:
            line = next(lines, None)
        except KeyboardInterrupt:
            if not options.is_spoken:
                raise
            print("\n/quit or Ctrl-D ends the chat.")
            continue
        if line is None:
            break
        try:
            if not talk.take(line):
                break
        except KeyboardInterrupt:
            if not options.is_spoken:
                raise
            print("\n(stopped; this turn is not remembered)")
        except CommandError as error:
            if not options.is_spoken:
                raise
            print(f"eyepiece: {error}", file=sys.stderr)


def lines_of_terminal() -> Iterator[str]:
    """What a person types, with a prompt and a history of lines where Python has readline; Ctrl-C passes through."""
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
    return _Prompted()


class _Prompted(Iterator[str]):
    """An iterator that goes on behind an interrupt, as a generator would not."""

    def __next__(self) -> str:
        try:
            return input("> ")
        except EOFError:
            print()
            raise StopIteration from None


class _Talk:
    """What a chat knows from line to line."""

    def __init__(self, client: ApiClient, options: ChatOptions) -> None:
        self._client = client
        self._as_json = options.as_json
        self._is_spoken = options.is_spoken
        self._slide = find_slide(client, options.slide)
        self._models = {str(model["id"]): model for model in client.models()}
        self._model = self._known(options.model) if options.model else next(iter(self._models))
        self._conversation_id = options.conversation_id
        self._region: str | None = None
        self._turn: int | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/new": self._begin,
            "/model": self._change_model,
            "/slide": self._change_slide,
            "/region": self._change_region,
            "/evidence": self._look_for_evidence,
            "/feedback": self._judge,
            "/help": lambda _: print(_HELP),
        }

    def greet(self) -> None:
        """The notice before the first question, and what can be asked."""
        if self._as_json:
            return
        print(printable(f"{self._slide['filename']}, slide {self._slide['id'][:12]}"))
        self._introduce()
        if self._is_spoken:
            print("/help shows the commands.\n")

    def take(self, line: str) -> bool:
        """Do what a line says; False when it ends the chat.

        Raises:
            CommandError: it could not be done.
        """
        said = argument_text(line).strip()
        if not said:
            return True
        if not said.startswith("/"):
            self._ask(said)
            return True
        name, _, rest = said.partition(" ")
        if name in ("/quit", "/exit"):
            return False
        if name not in self._commands:
            raise CommandError(f"There is no command {printable(name)}: /help shows them.", ExitCode.USAGE)
        self._commands[name](rest.strip())
        return True

    def _ask(self, text: str) -> None:
        question = Question(str(self._slide["id"]), text, self._conversation_id, self._model, self._region)
        self._turn = None  # a verdict on an answer that breaks off is not one on the answer before
        try:
            done = self._answer(question)
        except CommandError as error:
            if error.problem_code != "slide_not_ready":
                raise
            self._wait_until_ready()
            done = self._answer(question)
        self._turn = done.get("turn")
        self._conversation_id = done["conversation_id"] or self._conversation_id

    def _answer(self, question: Question) -> dict[str, Any]:
        if self._as_json:
            done = self._client.answer(question.slide_id, question.body)
            print_json_line(done)
            return done
        done = stream_answer(self._client, question, on_notice=print_doubts)
        number = "" if done.get("turn") is None else f", turn {done['turn']}"
        print(printable(f"[{done['model']}{number}, {scope_line(done, list(self._models.values()))}]\n"))
        if not done.get("remembered", True):
            print("The server could not store this turn; a follow-up will not know of it.")
        return done

    def _wait_until_ready(self) -> None:
        if not self._as_json:
            print(f"The slide is being encoded for {printable(self._model)}; the answer comes when that is done.")
        *_, last = self._client.encode_events(str(self._slide["id"]), self._model)
        if last.name == "failed":
            raise CommandError(printable(last.data["detail"]), ExitCode.FAILED, last.data["code"])

    def _begin(self, _: str = "") -> None:
        self._conversation_id = self._turn = None
        if not self._as_json:
            print("A new conversation.")

    def _change_model(self, name: str) -> None:
        if name:
            self._model = self._known(name)
            if not self._as_json:
                self._introduce()
        elif self._as_json:
            print_json_line({"models": list(self._models.values())})
        else:
            for model in self._models.values():
                here = "*" if model["id"] == self._model else " "
                print(printable(f"{here} {model['id']}: {model['title']}, {model['state']}"))

    def _change_slide(self, said: str) -> None:
        self._slide = find_slide(self._client, said or str(self._slide["id"]))
        if said:
            self._conversation_id = self._turn = self._region = None
        if self._as_json:
            print_json_line(self._slide)
        else:
            print(slide_text(self._slide, list(self._models.values())) + ("\nA new conversation." if said else ""))

    def _change_region(self, said: str) -> None:
        if said:
            _ = Question("", "", region=said).body  # what cannot be a region is refused here
            self._region = said
        if not self._as_json:
            about = "the whole slide" if self._region == "slide" else self._region
            print(printable(f"Questions are about {about or 'what the conversation was about last'}."))

    def _judge(self, said: str) -> None:
        verdict, _, words = said.partition(" ")
        if verdict not in VERDICTS:
            raise CommandError(f"Say /feedback with one of {', '.join(VERDICTS)}, and why.", ExitCode.USAGE)
        if self._turn is None or self._conversation_id is None:
            raise CommandError("There is no answer to judge: ask first.", ExitCode.USAGE)
        body = {"verdict": verdict, **({"words": words.strip()} if words.strip() else {})}
        given = self._client.give_feedback(self._conversation_id, self._turn, body)
        if self._as_json:
            print_json_line(given)
        else:
            print(f"Noted: {verdict}, on turn {self._turn}. It is kept with question and answer.")

    def _look_for_evidence(self, cell: str) -> None:
        if self._turn is None or self._conversation_id is None:
            raise CommandError("There is no answer to look for evidence of: ask first.", ExitCode.USAGE)
        body = {"conversation_id": self._conversation_id, "turn": self._turn, **({"cell": cell} if cell else {})}
        found = self._client.evidence(str(self._slide["id"]), body)
        if self._as_json:
            print_json_line(found)
        else:
            print(printable(evidence_text(found)))

    def _introduce(self) -> None:
        """Whose answers they will be."""
        model = self._models[self._model]
        print(printable(f"{model['title']}: {model['notice']}"))
        if model.get("topics"):
            print(printable(f"It can be asked about: {', '.join(topic['name'] for topic in model['topics'])}."))

    def _known(self, name: str) -> str:
        if name not in self._models:
            served = ", ".join(self._models)
            raise CommandError(f"This server does not serve {printable(name)}; it serves {served}.", ExitCode.USAGE)
        return name
