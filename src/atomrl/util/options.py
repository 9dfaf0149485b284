"""Options: frozen records of what a user may set, whose bounds, choices and contradictions stand at the field.

Pydantic checks them; `option_words.explained` alone turns what it finds into our one-line sentences.

From Python and from a JSON card a value must be of its type: a text is not a number, 1.5 is not an integer. From a
YAML, text that reads as a number is one, as it always was (`Options.read`). True is never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from atomrl.util.errors import UserError
from atomrl.util.option_words import Says, Unit, explained


def contradiction(sentence: str) -> PydanticCustomError:
    """What a validator raises.

    Args:
        sentence: for the user; each key in it begins with `{at}`, which becomes the path of the validator's section.
    """
    return PydanticCustomError("contradiction", sentence)  # it gets no context: nothing else is formatted into it


def _no_truth(value: object) -> object:
    """Raise UserError for True and False where a number belongs."""
    if isinstance(value, bool):
        raise PydanticCustomError("no_number", "a truth value")
    return value


def _whole(value: object) -> object:
    """Raise if a value is not an integer; 1.0 is not one."""
    if isinstance(value, bool | float):
        raise PydanticCustomError("no_number", "no whole number")
    return value


def _no_nan(value: float) -> float:
    """Raise UserError for NaN."""
    if isnan(value):
        raise PydanticCustomError("nan", "not a number")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1)]
CountOrNone = Annotated[Whole, Field(ge=0)]
Number = Annotated[float, BeforeValidator(_no_truth), AfterValidator(_no_nan)]
Positive = Annotated[Number, Field(gt=0.0)]
PositiveFinite = Annotated[Number, AllowInfNan(False), Field(gt=0.0)]
Finite = Annotated[Number, AllowInfNan(False), Says("must be a finite number")]
Fraction = Annotated[Number, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[Number, Field(ge=0.0, lt=1.0)]
Weight = Annotated[Number, AllowInfNan(False), Field(ge=0.0), Says("must be 0 or more, and finite")]
Seconds = Annotated[Number, Field(gt=0.0, le=86_400.0), Unit("s")]
"""That one score may take: at most a day."""
Rate = Annotated[Number, Field(gt=0.0, le=1.0)]
"""Of learning: AdamW moves each weight by about as much in a step."""
Seed = Annotated[Whole, Field(ge=-(2**63), lt=2**64), Says("must be a whole number of 64 bits")]
"""What torch takes."""
Threads = Annotated[Whole, Field(ge=1, le=1024)]
"""Of torch, which dies where the system gives it fewer than it wants."""


class Options(BaseModel):
    """Base of all options; construct by keywords.

    Raises:
        UserError: a value that cannot be, an unknown option or one that is missing, or options that contradict each
            other; one line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, coerce_numbers_to_str=True
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise UserError(explained(error, type(self), given)) from error

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # a section inside keeps its place in errors

    @classmethod
    def read(cls, tree: Mapping[str, Any]) -> Self:
        """Options out of a YAML's values, where text may stand for a number and a number for text.

        Raises:
            UserError: as the class.
        """
        try:
            return cls.model_validate(tree, strict=False)
        except ValidationError as error:
            raise UserError(explained(error, cls, tree, from_text=True)) from error

    @classmethod
    def read_card(cls, entries: Mapping[str, Any]) -> Self:
        """Options out of the JSON of a model's card, whose lists stand for tuples; each value must be of its type.

        Raises:
            UserError: as the class.
        """
        tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()}
        try:
            return cls.model_validate(tuples)
        except ValidationError as error:
            raise UserError(explained(error, cls, entries)) from error

    def changed(self, **changes: Any) -> Self:
        """A copy with other values, checked as any other.

        Raises:
            UserError: as the class.
        """
        return type(self)(**{**dict(self), **changes})
