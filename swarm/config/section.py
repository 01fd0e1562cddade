"""What all parts of experiment files have in common, and which of their settings decide results."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

PHYSICAL: Final = "physical"
"""Marks a setting that says where, how fast or how patiently a run is carried out: `Annotated[str, PHYSICAL]`.

Such a setting stays out of the journal and may differ when a run goes on."""


NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
Name = Annotated[str, Field(pattern=NAME)]
"""What a folder can be called."""


class Section(BaseModel):
    """A part of an experiment file: no key that is not in it, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_serializer(mode="wrap")
    def _only_logical(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        data: dict[str, Any] = dump(self)
        if info.context != PHYSICAL:
            return data
        fields = type(self).model_fields
        return {name: value for name, value in data.items() if PHYSICAL not in fields[name].metadata}


def refuse_where(*rules: tuple[object, str]) -> None:
    """Refuse settings by the first rule that they break, from the validator of a section.

    Args:
        rules: (whether it is broken, what is wrong and what to do).

    Raises:
        ValueError: the text of that rule.
    """
    for broken, message in rules:
        if broken:
            raise ValueError(message)


def logical_settings(section: Section) -> dict[str, Any]:
    """Return the settings that decide results, defaults included, as JSON-able data; the journal begins with them."""
    return section.model_dump(mode="json", context=PHYSICAL)
