"""Why JSON is no message of croupier.proto, in words of our own: protobuf's repeat what stood there.

That may be a customer's, and no business of whoever reads the client's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

REFUSED = json_format.ParseError, OverflowError
"""What protobuf raises; OverflowError for an integer that no float64 can hold."""

_LONGEST = 100  # characters of a name that we do not know
_WORDS = {
    FieldDescriptor.CPPTYPE_DOUBLE: "a finite number",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number, not below 0",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number, not below 0",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "a text",
    FieldDescriptor.CPPTYPE_MESSAGE: "an object",
}


def refusal(fields: Mapping[str, Any], message: Message, place: str = "") -> str:
    """Where `fields`, which protobuf refuses to read into an empty `message`, are wrong, and what would be right.

    Each is tried alone, and the first that is refused is it.
    """
    known = {name: field for field in message.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    names = ", ".join(field.name for field in message.DESCRIPTOR.fields)
    fields_are = f"{f'those of {place[:-1]}' if place else 'the fields of the body'} are: {names}"
    for name, value in fields.items():
        field = known.get(name)
        if field is None:
            return f'there is no field named "{place}{name[:_LONGEST]}"; {fields_are}'
        try:
            json_format.ParseDict({name: value}, type(message)())
        except REFUSED:
            return _inside(field, value, type(message), place) or f"{place}{name}: expected {_expected(field)}"
    return f"fields that cannot be together; {fields_are}"


def _inside(field: FieldDescriptor, value: Any, kind: type[Message], place: str) -> str:
    """The same of a message among `value`; empty where it is wrong as a whole."""
    if field.message_type is None or _is_map(field) or not field.is_repeated or not isinstance(value, list):
        return ""
    for at, each in enumerate(value):
        if not isinstance(each, dict):
            return f"{place}{field.name}.{at}: expected an object"
        inner = getattr(kind(), field.name).add()
        try:
            json_format.ParseDict(each, inner)
        except REFUSED:
            return refusal(each, type(inner)(), f"{place}{field.name}.{at}.")
    return ""


def _expected(field: FieldDescriptor) -> str:
    if _is_map(field):
        return f"an object, each value of it {_WORDS[field.message_type.fields_by_name['value'].cpp_type]}"
    word = _WORDS[field.cpp_type]
    return f"a list, each item of it {word}" if field.is_repeated else word


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
