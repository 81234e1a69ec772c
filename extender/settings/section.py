"""What all parts of the configuration file have in common.

Owns the base of the models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from extender.settings.mistakes import FieldMistake, refuse


def _has_items(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("must have at least one item")
    return items


# Not Field(min_length=1): that also complains of a list whose only item is wrong.
NOT_EMPTY = (AfterValidator(_has_items), Field(json_schema_extra={"minItems": 1}))


class Section(BaseModel):
    """A mapping of the file: camelCase there, snake_case here, no unknown keys, never changed."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse(self._conflicts())
        return self

    def _conflicts(self) -> Iterable[FieldMistake]:
        """What does not fit together, where each value is right by itself."""
        return ()
