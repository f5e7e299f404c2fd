"""Which JSON schemas are taken, what is refused and how, and whether an answer follows."""

import json
from typing import Any

import pytest

from server.asking.answer_schema import MOST_BYTES, answer_schema
from server.errors import InvalidRequest, LanguageModelFailed

YES_NO: dict[str, Any] = {"type": "boolean"}


def described(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def nested(levels: int) -> Any:
    return YES_NO if levels == 0 else described(a=nested(levels - 1))


REFUSED: dict[str, tuple[Any, str]] = {
    "no object": ([], "must be an object"),
    "a text at the root": ({"type": "string"}, "must describe an object"),
    "too many bytes": (described(a={"enum": ["x" * MOST_BYTES]}), "bytes"),
    "too deep": (nested(8), "levels deep"),
    "too many parts": (described(**{f"a{number}": YES_NO for number in range(300)}), "parts"),
    "too large an answer": (
        described(a={"type": "array", "maxItems": 100, "items": {"type": "array", "maxItems": 100, "items": YES_NO}}),
        "2000 values",
    ),
    "too many lengths": (
        described(**{f"a{number}": {"type": "string", "maxLength": 10 + number} for number in range(9)}),
        "different lengths",
    ),
    "about itself": (
        {**described(a={"$ref": "#/$defs/A"}), "$defs": {"A": described(b={"$ref": "#/$defs/A"})}},
        "schema.a.b is about itself",
    ),
    "references that multiply": (
        {
            **described(a={"$ref": "#/$defs/A0"}),
            "$defs": {
                **{f"A{at}": {"anyOf": [{"$ref": f"#/$defs/A{at + 1}"}] * 10} for at in range(5)},
                "A5": YES_NO,
            },
        },
        "parts",
    ),
    "a reference elsewhere": (described(a={"$ref": "https://example.org/a.json"}), "not in $defs"),
    "a pattern": (described(a={"type": "string", "pattern": "(a+)+$"}), "uses pattern"),
    "unique items": (described(a={"type": "array", "items": YES_NO, "uniqueItems": True}), "uses uniqueItems"),
    "all of": (described(a={"allOf": [YES_NO, YES_NO]}), "needs a type"),
    "fractions in bounds": (described(a={"type": "number", "minimum": 0}), "uses minimum"),
    "more properties": ({**described(a=YES_NO), "additionalProperties": True}, "additional properties"),
    "no properties": ({"type": "object"}, "needs properties"),
    "an unknown requirement": ({**described(a=YES_NO), "required": ["b"]}, "not among its properties"),
    "an unknown type": (described(a={"type": "date"}), "needs a type"),
    "no type": (described(a={}), "needs a type"),
    "true": (described(a=True), "must be an object"),
    "an array of anything": (described(a={"type": "array"}), "needs items"),
    "bounds the wrong way": (described(a={"type": "string", "minLength": 3, "maxLength": 2}), "above its maxLength"),
    "a bound that is none": (described(a={"type": "string", "maxLength": True}), "whole number"),
    "an enum of objects": (described(a={"enum": [{}]}), "enum"),
    "an enum beside its type": (described(a={"type": "string", "enum": [1]}), "not of its type"),
    "definitions that are none": ({**described(a=YES_NO), "$defs": 1}, "must be an object of schemas"),
    "surrogates": (described(a={"\ud800": 1, "type": "string"}), "uses ?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_held_is_refused_by_name(name: str) -> None:
    schema, told = REFUSED[name]
    with pytest.raises(InvalidRequest) as caught:
        answer_schema(schema)
    assert told in caught.value.detail
    caught.value.detail.encode()


def test_references_stand_in_their_place_and_notes_are_left_out() -> None:
    given = {
        "title": "Report",
        **described(a={"$ref": "#/$defs/A"}, b={"type": ["integer", "null"], "minimum": 1, "description": "Grade."}),
        "$defs": {"A": {"type": "string", "enum": ["x", "y"], "title": "A"}},
    }
    assert answer_schema(given).schema == described(
        a={"enum": ["x", "y"]}, b={"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}
    )


SCHEMA = described(
    word={"type": "string", "minLength": 1, "maxLength": 3},
    size={"type": "integer", "minimum": 1},
    share={"type": "number"},
    several={"type": "array", "items": {"anyOf": [{"const": True}, {"type": "null"}]}, "maxItems": 2},
)
GOOD = {"word": "abc", "size": 1, "share": 0.5, "several": [True, None]}


@pytest.mark.parametrize(
    "changed",
    [
        {"word": ""},
        {"word": "abcd"},
        {"size": 0},
        {"size": True},
        {"size": 1.5},
        {"share": "1"},
        {"several": [True] * 3},
        {"several": [1]},
        {"more": 1},
    ],
)
def test_an_answer_that_does_not_follow_is_a_failure(changed: dict[str, Any]) -> None:
    schema = answer_schema(SCHEMA)
    schema.require_followed(json.dumps(GOOD))
    for text in (json.dumps(GOOD | changed), json.dumps(GOOD)[:-1], '{"word": "abc"}', ""):
        with pytest.raises(LanguageModelFailed):
            schema.require_followed(text)


def test_control_characters_in_texts_are_escaped_as_json_has_them() -> None:
    piece = answer_schema(SCHEMA).as_json('{"word":"a\tb')
    assert json.loads(piece + '"}') == {"word": "a\tb"}
