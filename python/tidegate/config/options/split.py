"""Where something goes: an upstream, or shares of several."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from tidegate.config.options.values import Number, fault, show

__all__ = ["Split"]


def _split(value: object) -> object:
    if isinstance(value, str):
        return {str(value): 1}
    if isinstance(value, dict) and value:
        return value
    raise fault(f"expected an upstream's name or a mapping of names to weights, found {show(value)}")


def _some_weight(value: dict[str, int]) -> dict[str, int]:
    if not any(value.values()):
        raise fault("the weights add up to 0", "give one upstream a weight above 0")
    return value


Split = Annotated[
    dict[str, Annotated[int, Field(ge=0, le=1_000_000), Number]],
    AfterValidator(_some_weight),
    BeforeValidator(_split, json_schema_input_type=str | dict[str, int]),
]
