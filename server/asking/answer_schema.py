"""The JSON schema of an answer: what of the language is taken, how large it may be, and whether an answer follows it.

vLLM's xgrammar builds a grammar of it that the answer cannot leave. What xgrammar takes no notice of (`uniqueItems`,
several `allOf`), or holds in some places only, would be broken without a word, so what is taken is a list, and all else
is refused by name. References are put in their place first: what is left cannot be about itself.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.errors import InvalidRequest, LanguageModelFailed, utf8_text

MOST_BYTES: Final = 16 * 1024
MOST_DEPTH: Final = 8
# Schemas in the schema once references are in their place.
MOST_PARTS: Final = 300
# Values in the largest answer, as far as the schema bounds it.
MOST_VALUES: Final = 2_000
MOST_TEXT: Final = 2_000
MOST_ITEMS: Final = 100
# Of bounds of texts: xgrammar 0.2.8 took 0.4 s for 8 different ones, 5 s for 32; 100 had not ended after 55 s.
MOST_LENGTHS: Final = 8
_TYPES: Final = ("object", "array", "string", "integer", "number", "boolean", "null")
# They say something to people. The model is not shown the schema, so they are left out.
_NOTES: Final = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated"})
_OF_TYPE: Final[dict[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
# Between values there is none: vLLM writes them without blanks.
_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_REF: Final = "$ref"
_DEFINITIONS: Final = ("$defs", "definitions")

Schema = dict[str, Any]


@dataclass(frozen=True)
class AnswerSchema:
    """A schema that was checked; `schema` has no references."""

    schema: Schema

    def as_json(self, text: str) -> str:
        """A piece of an answer as JSON has it: xgrammar lets control characters stand in texts, which JSON escapes."""
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    def require_followed(self, text: str) -> None:
        """Looks at a whole answer.

        Raises:
            LanguageModelFailed: it does not follow the schema, or is no JSON.
        """
        try:
            is_followed = _follows(json.loads(text), self.schema)
        except ValueError:
            is_followed = False
        if not is_followed:
            raise LanguageModelFailed("The language model's answer does not follow the schema; ask again.")


def answer_schema(given: Any) -> AnswerSchema:
    """The schema of a request, checked.

    Raises:
        InvalidRequest: it is too large, too deep, about itself, or uses what is not taken; says where and what to do.
    """
    if not isinstance(given, dict):
        raise InvalidRequest("json_schema.schema must be an object: a JSON schema whose type is `object`.")
    if len(json.dumps(given)) > MOST_BYTES:
        raise InvalidRequest(f"The JSON schema has more than {MOST_BYTES} bytes; ask for less at once.")
    definitions: dict[str, Any] = {}
    for name in _DEFINITIONS:
        found = given.get(name, {})
        if not isinstance(found, dict):
            raise _refused(name, "must be an object of schemas")
        definitions |= {f"#/{name}/{key}": schema for key, schema in found.items()}
    root = {name: value for name, value in given.items() if name not in _DEFINITIONS}
    reading = _Reading(definitions)
    schema = reading.read(root, "schema", 1, ())
    if len(reading.lengths) > MOST_LENGTHS:
        raise InvalidRequest(
            f"The JSON schema has texts of more than {MOST_LENGTHS} different lengths; give several the same maxLength."
        )
    if schema.get("type") != "object":
        raise InvalidRequest("The JSON schema must describe an object: put what you ask for into its properties.")
    if _most_values(schema) > MOST_VALUES:
        raise InvalidRequest(
            f"An answer by this JSON schema may hold more than {MOST_VALUES} values; lower maxItems or ask for less."
        )
    return AnswerSchema(schema)


class _Reading:
    """Reads a schema part by part, with its references in their place."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._parts = 0
        # Each once, whatever how many texts have it.
        self.lengths: set[tuple[int | None, int | None]] = set()

    def read(self, given: Any, where: str, depth: int, within: tuple[str, ...]) -> Schema:
        """The same schema without notes and references; `within` are the references that it lies in."""
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidRequest(
                f"The JSON schema has more than {MOST_PARTS} parts, its references in their place; ask for less."
            )
        if depth > MOST_DEPTH:
            raise _refused(where, f"lies more than {MOST_DEPTH} levels deep; make it flatter")
        if not isinstance(given, dict):
            raise _refused(where, "must be an object that names a type")
        said = {name: value for name, value in given.items() if name not in _NOTES}
        if _REF in said:
            return self._referred(said, where, depth, within)
        if "anyOf" in said:
            return self._any_of(said, where, depth, within)
        if "enum" in said or "const" in said:
            return _enumerated(said, where)
        return self._typed(said, where, depth, within)

    def _referred(self, said: Schema, where: str, depth: int, within: tuple[str, ...]) -> Schema:
        name = said[_REF]
        if len(said) > 1:
            raise _refused(where, "has other words beside $ref; leave them out")
        if not isinstance(name, str) or name not in self._definitions:
            raise _refused(where, "refers to what is not in $defs; write `#/$defs/…`")
        if name in within:
            raise _refused(where, "is about itself, and answers of any depth are not possible; flatten it")
        return self.read(self._definitions[name], where, depth, (*within, name))

    def _any_of(self, said: Schema, where: str, depth: int, within: tuple[str, ...]) -> Schema:
        branches = said["anyOf"]
        if len(said) > 1 or not isinstance(branches, list) or not branches:
            raise _refused(where, "needs anyOf to be a list of schemas, and nothing beside it")
        return {"anyOf": [self.read(it, f"{where}.anyOf[{at}]", depth + 1, within) for at, it in enumerate(branches)]}

    def _typed(self, said: Schema, where: str, depth: int, within: tuple[str, ...]) -> Schema:
        named = said.get("type")
        types = [named] if isinstance(named, str) else named
        if not isinstance(types, list) or not types or any(it not in _TYPES for it in types):
            raise _refused(where, f"needs a type, one of {', '.join(_TYPES)}")
        if len(types) > 1:  # each with its own words
            branches = [self._typed(_words_of(said, it), where, depth, within) for it in dict.fromkeys(types)]
            _refuse_unknown(said, frozenset().union(*(_OF_TYPE[it] for it in types)), where)
            return {"anyOf": branches}
        [kind] = types
        _refuse_unknown(said, _OF_TYPE[kind], where)
        if kind == "object":
            return self._object(said, where, depth, within)
        if kind == "array":
            return self._array(said, where, depth, within)
        lowest, highest = ("minLength", "maxLength") if kind == "string" else ("minimum", "maximum")
        if kind == "string":
            found = _range(said, where, lowest, highest, 0, MOST_TEXT)
            self.lengths.add((found.get(lowest), found.get(highest)))
            return {"type": kind, **found}
        if kind == "integer":
            return {"type": kind, **_range(said, where, lowest, highest, -(10**9), 10**9)}
        return {"type": kind}

    def _object(self, said: Schema, where: str, depth: int, within: tuple[str, ...]) -> Schema:
        properties, required = said.get("properties", {}), said.get("required", [])
        if said.get("additionalProperties", False) is not False:
            raise _refused(where, "allows additional properties; name all of them and say additionalProperties: false")
        if not isinstance(properties, dict) or not properties:
            raise _refused(where, "needs properties")
        if not isinstance(required, list) or any(not isinstance(it, str) or it not in properties for it in required):
            raise _refused(where, "requires what is not among its properties")
        read = {name: self.read(it, f"{where}.{name[:40]}", depth + 1, within) for name, it in properties.items()}
        needed = [name for name in read if name in required]
        return {"type": "object", "properties": read, "required": needed, "additionalProperties": False}

    def _array(self, said: Schema, where: str, depth: int, within: tuple[str, ...]) -> Schema:
        if "items" not in said:
            raise _refused(where, "needs items, the schema of each")
        items = self.read(said["items"], f"{where}[]", depth + 1, within)
        return {"type": "array", "items": items, **_range(said, where, "minItems", "maxItems", 0, MOST_ITEMS)}


def _enumerated(said: Schema, where: str) -> Schema:
    """Scalars, whatever the type beside them says: it is checked, and not needed then."""
    _refuse_unknown(said, frozenset({"enum", "const"}), where)
    values = said["enum"] if "enum" in said else [said["const"]]
    if not isinstance(values, list) or not values or any(not _is_scalar(it) for it in values):
        raise _refused(where, "needs enum to be a list of texts, whole numbers, booleans or null")
    if len(values) > MOST_ITEMS or any(len(it) > MOST_TEXT for it in values if isinstance(it, str)):
        raise _refused(where, f"has an enum of more than {MOST_ITEMS} values, or too long ones")
    named = said.get("type")
    types = [named] if isinstance(named, str) else named
    if types is not None and not (
        isinstance(types, list) and all(any(_is_a(it, kind) for kind in types) for it in values)
    ):
        raise _refused(where, "has values in its enum that are not of its type")
    if "const" in said and not any(_equal(it, said["const"]) for it in values):
        raise _refused(where, "has a const that is not in its enum")
    return {"enum": [said["const"]] if "const" in said else values}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int)


def _words_of(said: Schema, kind: str) -> Schema:
    return {"type": kind, **{name: value for name, value in said.items() if name in _OF_TYPE[kind]}}


def _refuse_unknown(said: Schema, taken: frozenset[str], where: str) -> None:
    unknown = sorted(name[:40] for name in said if name not in taken and name != "type")
    if unknown:
        raise _refused(where, f"uses {', '.join(unknown[:5])}, which answers cannot be held to here; leave it out")


def _range(said: Schema, where: str, lowest: str, highest: str, least: int, most: int) -> Schema:
    """Both bounds as they are said."""
    found = {name: said[name] for name in (lowest, highest) if name in said}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _refused(where, f"needs {name} to be a whole number from {least} to {most}")
    if found.get(lowest, least) > found.get(highest, most):
        raise _refused(where, f"has a {lowest} above its {highest}")
    return found


def _most_values(schema: Schema) -> int:
    """Of the largest answer; of an array without `maxItems` one item, since nothing is unrolled for it."""
    if "anyOf" in schema:
        return max(map(_most_values, schema["anyOf"]))
    if schema.get("type") == "object":
        return 1 + sum(map(_most_values, schema["properties"].values()))
    if schema.get("type") == "array":
        most: int = max(schema.get("maxItems", 1), schema.get("minItems", 1))
        return 1 + most * _most_values(schema["items"])
    return 1


def _follows(value: Any, schema: Schema) -> bool:
    if "anyOf" in schema:
        return any(_follows(value, it) for it in schema["anyOf"])
    if "enum" in schema:
        return any(_equal(value, it) for it in schema["enum"])
    if not _is_a(value, schema["type"]):
        return False
    check = _FURTHER.get(schema["type"])
    return check is None or check(value, schema)


def _object_follows(value: Mapping[str, Any], schema: Schema) -> bool:
    properties = schema["properties"]
    return all(name in value for name in schema["required"]) and all(
        name in properties and _follows(it, properties[name]) for name, it in value.items()
    )


def _array_follows(value: Sequence[Any], schema: Schema) -> bool:
    return _within(len(value), schema, "minItems", "maxItems") and all(_follows(it, schema["items"]) for it in value)


def _within(size: int, schema: Schema, lowest: str, highest: str) -> bool:
    return bool(schema.get(lowest, -math.inf) <= size <= schema.get(highest, math.inf))


_FURTHER: Final[dict[str, Callable[[Any, Schema], bool]]] = {
    "object": _object_follows,
    "array": _array_follows,
    "string": lambda value, schema: _within(len(value), schema, "minLength", "maxLength"),
    "integer": lambda value, schema: _within(value, schema, "minimum", "maximum"),
}
_PYTHON: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _is_a(value: Any, kind: str) -> bool:
    """As JSON has types: true is no number."""
    return isinstance(value, _PYTHON.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _refused(where: str, what: str) -> InvalidRequest:
    return InvalidRequest(utf8_text(f"The JSON schema cannot be used: {where[:200]} {what}."))
