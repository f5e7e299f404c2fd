"""`eyepiece ask`: a question about a slide, its answer as it is generated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.piece_names import pieces_of
from server.commands.terminal import print_json, print_now, printable


@dataclass(frozen=True)
class Question:
    """What to ask; `conversation_id` continues an earlier answer's conversation, `model` names one but the first.

    `region` is what of the slide is asked about: "slide", a region's id, or x,y,width,height in level-0 pixels.
    With `choices` the answer is one of them."""

    slide_id: str
    text: str
    conversation_id: str | None = None
    model: str | None = None
    region: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        """The body of the questions route."""
        body: dict[str, Any] = {"question": self.text}
        if self.conversation_id:
            body["conversation_id"] = self.conversation_id
        if self.model:
            body["model"] = self.model
        if self.region:
            body["region"] = _region(self.region)
        if self.choices:
            body["choices"] = list(self.choices)
        return body


def _region(text: str) -> str | dict[str, Any]:
    """As a request has it.

    Raises:
        CommandError: it has commas and is not four numbers.
    """
    if "," not in text:
        return text
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise CommandError(
            "A region is x,y,width,height in level-0 pixels, e.g. 12000,8000,4096,4096.", ExitCode.USAGE
        ) from error
    return {"rectangle": {"x": x, "y": y, "width": width, "height": height}}


def scope_line(told: dict[str, Any], models: Sequence[dict[str, Any]]) -> str:
    """What of the slide an answer is about; `models` are the server's, looked at for a region alone."""
    scope = told.get("scope", {"kind": "slide"})
    if scope["kind"] == "slide":
        return "about the whole slide"
    area = "" if scope["area_mm2"] is None else f", {scope['area_mm2']:.2f} mm²"
    return f"about region {scope['region_id']} ({scope['tiles']} {pieces_of(models, told.get('model'))}{area})"


def ask(client: ApiClient, question: Question, as_json: bool) -> None:
    """The command: the answer streams to standard output; with `as_json` one document at the end.

    Raises:
        CommandError: the server refused the question, or the answer broke off.
    """
    if as_json:
        print_json(client.answer(question.slide_id, question.body))
        return
    done = stream_answer(client, question, on_notice=print_notice)
    print_choices(done)
    in_region = done.get("scope", {"kind": "slide"})["kind"] == "region"
    print(answer_footer(done, client.models() if in_region else []))
    if not done.get("remembered", True):
        print("The server could not store this turn; a follow-up will not know of it.")
    if done["conversation_id"]:
        print(f'Go on with: eyepiece ask {question.slide_id} "…" --conversation {done["conversation_id"]}')


def ask_case(client: ApiClient, case: str, question: Question, as_json: bool) -> None:
    """Each slide of a case is asked; each answer is printed under its slide as it comes, or why there is none.

    Raises:
        CommandError: the server refused the question, or the answers broke off; or no slide answered.
    """
    body = {"case": case, **question.body}
    if as_json:
        told = client.case_answers(body)
        print_json(told)
    else:
        told = _print_case(client, body)
    if all(it["answer"] is None for it in told["answers"]):
        raise CommandError("No slide of the case answered.", ExitCode.FAILED)


def _print_case(client: ApiClient, body: dict[str, Any]) -> dict[str, Any]:
    slides: dict[str, dict[str, Any]] = {}
    for event in client.case_events(body):
        data = event.data
        if event.name == "case":
            slides = {slide["slide_id"]: slide for slide in data["slides"]}
            print(f"{len(slides)} slides are asked; nothing is concluded from their answers together.")
        elif event.name == "notice":
            print(_case_line(slides[data["slide_id"]]))
            print_notice(data)
        elif event.name == "token":
            print_now(printable(data["text"]))
        elif event.name == "answer":
            print_now("\n")
            print_choices(data)
        elif event.name == "refused":
            print(_case_line(slides[data["slide_id"]]))
            print(printable(f"no answer: {data['detail']} ({data['code']})"))
        elif event.name == "done":
            return data
        elif event.name == "error":
            raise CommandError(printable(f"{data['detail']}"), ExitCode.FAILED, data["code"])
    raise CommandError("The answers broke off before their end; ask again.", ExitCode.UNREACHABLE)


def _case_line(slide: dict[str, Any]) -> str:
    about = "".join(f", {slide[name]}" for name in ("stain", "body_site") if slide.get(name))
    return printable(f"\n── {slide['slide_id'][:12]}  {slide['filename']}{about}")


def stream_answer(
    client: ApiClient, question: Question, end: str = "\n", on_notice: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Prints tokens as they come, then `end`; returns the data of `done`. `on_notice` gets what comes before the first.

    Raises:
        CommandError: the server refused the question, or the answer broke off.
    """
    for event in client.answer_events(question.slide_id, question.body):
        if event.name == "notice" and on_notice is not None:
            on_notice(event.data)
        elif event.name == "token":
            print_now(printable(event.data["text"]))
        elif event.name == "done":
            print_now(end)
            return event.data
        elif event.name == "error":
            print()
            raise CommandError(printable(event.data["detail"]), ExitCode.FAILED, event.data["code"])
    raise CommandError("The answer broke off before its end; ask again.", ExitCode.FAILED)


def print_notice(told: dict[str, Any]) -> None:
    """The model's notice and what is doubtful about its answer, before the answer."""
    print(printable(told["notice"]))
    print_doubts(told)
    print()


def print_doubts(told: dict[str, Any]) -> None:
    """What is doubtful, a line each."""
    for doubt in told.get("warnings", ()):
        print(printable(f"doubt: {doubt['detail']}"))


def print_choices(done: dict[str, Any]) -> None:
    """Each choice and its share, a line each; shares are not calibrated."""
    for choice in done.get("choices", ()):
        print(printable(f"{choice['probability']:.4f} of all choices: {choice['text']}"))


def answer_footer(done: dict[str, Any], models: Sequence[dict[str, Any]]) -> str:
    """Model, usage and timing, in lines for a person; `models` are the server's."""
    usage, timing = done["usage"], done["timing"]
    first_ms = timing["time_to_first_token_ms"]
    first = "no token" if first_ms is None else f"first token after {first_ms:.0f} ms"
    return printable(
        f"\n{scope_line(done, models)}\nmodel {done['model']} · encoder {done['encoder_id']} · "
        f"{usage['slide_tokens']} slide tokens, {usage['cached_tokens']} of {usage['prompt_tokens']} prompt tokens "
        f"cached, {usage['completion_tokens']} generated\n"
        f"{first} (embedding {timing['cache_ms']:.1f} ms), all {timing['total_ms']:.0f} ms"
    )
