"""What every section of the configuration is made of: the base model, and how a key is declared."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

REQUIRED: Any = ...


class Section(BaseModel):
    """One table of the configuration: frozen, unknown keys refused, input never in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def setting(
    description: str,
    default: Any = REQUIRED,
    *,
    example: Any = None,
    shown: bool = False,
    **constraints: Any,
) -> Any:
    """A configuration key.

    `description` says what to write, with its unit; it goes into the example file and after every
    error about the key. `example` stands in the example file instead of a default, behind a #
    unless the key is required or `shown`.
    """
    extra = {"example": example, "shown": shown or default is REQUIRED}
    if isinstance(default, list | dict):
        kept = default
        return Field(
            default_factory=lambda: type(kept)(kept),
            description=description,
            json_schema_extra=extra,
            validate_default=True,
            **constraints,
        )
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def example_of(field: FieldInfo) -> tuple[Any, bool]:
    """The example value of a key (None: there is none), and whether it stands without a #."""
    extra = field.json_schema_extra
    return (extra["example"], bool(extra["shown"])) if isinstance(extra, dict) else (None, False)


def split_commas(value: Any) -> Any:
    """`a, b` as the environment writes it is a list of two."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Strings: TypeAlias = Annotated[list[str], BeforeValidator(split_commas)]
Secrets: TypeAlias = Annotated[list[SecretStr], BeforeValidator(split_commas)]
