"""The kinds of values that keys take, with their one error message each.

A value that may be written in two ways (`GET` or `[GET, POST]`, `never` or a mapping) is brought into one shape before
it is validated. So no field is a union that could only fail with one message for each of its branches.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tidegate.config import addresses, names, origins, units
from tidegate.config.addresses import Bind, NameServer, Network, Target
from tidegate.config.expand import Expanded
from tidegate.config.units import UnitError

__all__ = [
    "FAULT",
    "BindValue",
    "ByteRateLimit",
    "CloseCode",
    "CookieName",
    "Duration",
    "Flag",
    "HeaderName",
    "HeaderValue",
    "HostName",
    "HostPattern",
    "Limit",
    "ListUrl",
    "LookedUpName",
    "Method",
    "NameAndPort",
    "NameServerValue",
    "NetworkValue",
    "Number",
    "OptionalCloseCode",
    "OptionalDuration",
    "OptionalPositiveDuration",
    "Options",
    "OriginRules",
    "Percent",
    "PositiveDuration",
    "RateLimit",
    "RouteName",
    "ServerName",
    "Share",
    "Size",
    "SizeLimit",
    "Subprotocol",
    "TargetValue",
    "Text",
    "UpgradeToken",
    "WordOr",
    "ZoneName",
    "fault",
    "items",
    "listed",
    "one_of",
    "parsed",
    "show",
]

FAULT = "tidegate"
"""The type of pydantic errors whose words are ours."""

T = TypeVar("T")


class Options(BaseModel):
    """A mapping of the file: its keys are all known, nothing is coerced, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    @property
    def written(self) -> set[str]:
        """The fields that the file gives."""
        return self.model_fields_set


def fault(message: str, hint: str = "") -> PydanticCustomError:
    """An error in our own words."""
    return PydanticCustomError(FAULT, "{message}", {"message": message, "hint": hint})


def parsed(parse: Callable[[str], T]) -> BeforeValidator:
    """Texts become what `parse` makes of them; its UnitError becomes a fault."""

    def validate(value: object) -> T:
        if not isinstance(value, str):
            raise _not_text(value, parse)
        return _attempt(parse, str(value))

    return BeforeValidator(validate, json_schema_input_type=str)


def _not_text(value: object, parse: Callable[[str], object]) -> PydanticCustomError:
    """A number may only lack its quotes, or may be wrong in quotes too."""
    if not _scalar(value):
        return fault(f"expected text, found {show(value)}")
    try:
        parse(show(value))
    except UnitError as error:
        return fault(str(error), error.hint)
    return fault(f"expected text, found {show(value)}", f'write it in quotes: "{show(value)}"')


def _attempt(parse: Callable[[Any], T], value: object) -> T:
    try:
        return parse(value)
    except UnitError as error:
        raise fault(str(error), error.hint) from error


def _scalar(value: object) -> bool:
    return isinstance(value, bool | int | float)


def show(value: object) -> str:
    """A value as YAML spells it, for messages."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"'{value}'" if isinstance(value, str) else str(value)


def listed(of: Any = str) -> BeforeValidator:
    """One value of the type `of`, or a list of them, becomes a tuple."""

    def validate(value: object) -> object:
        if isinstance(value, list) and not value:
            raise fault("expected at least one value, found an empty list")
        return tuple(value) if isinstance(value, list) else (value,)

    return BeforeValidator(validate, json_schema_input_type=of | list[of])


def items(*, at_least: int = 0) -> BeforeValidator:
    """A list becomes a tuple."""

    def validate(value: object) -> object:
        if not isinstance(value, list):
            raise fault(f"expected a list, found {show(value)}", f"write [{value}]" if isinstance(value, str) else "")
        if len(value) < at_least:
            raise fault(
                f"expected a list with at least {at_least} item{'s' if at_least > 1 else ''}, found an empty one"
            )
        return tuple(value)

    return BeforeValidator(validate)


@dataclass(frozen=True)
class WordOr:
    """A mapping, or a word that stands for a value (`never` for None).

    A plain union would report one error for each of its branches; this one knows which branch was meant.
    """

    words: Mapping[str, object]
    model: type[Options]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        model = handler.generate_schema(self.model)
        written = core_schema.union_schema([core_schema.literal_schema(list(self.words)), model])
        spelling = core_schema.wrap_serializer_function_ser_schema(self._spelt, schema=model)
        return core_schema.no_info_wrap_validator_function(
            self._validate, model, json_schema_input_schema=written, serialization=spelling
        )

    def _spelt(self, value: object, inner: SerializerFunctionWrapHandler) -> object:
        words = [word for word, meaning in self.words.items() if meaning == value]
        return words[0] if words else inner(value)

    def _validate(self, value: object, inner: ValidatorFunctionWrapHandler) -> object:
        if isinstance(value, str) and value in self.words:
            return self.words[value]
        if isinstance(value, dict):
            return inner(value)
        expected = f"expected {', '.join(self.words)} or a mapping, found {show(value)}"
        near = difflib.get_close_matches(str(value), self.words, 1)
        raise fault(expected, f"did you mean '{near[0]}'?" if near else "")


def one_of(options: Options, keys: Sequence[str]) -> str:
    """The one of `keys` that is written; none or several are a fault."""
    given = [key for key in keys if key in options.written]
    if len(given) != 1:
        found = " and ".join(f"'{key.rstrip('_')}'" for key in given) if given else "none"
        names = ", ".join(key.rstrip("_") for key in keys)
        raise fault(f"expected exactly one of {names}, found {found}")
    return given[0]


def _text(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    quoted = f'write it in quotes: "{show(value)}"' if _scalar(value) else ""
    raise fault(f"expected text, found {show(value)}", quoted)


def _number(value: object) -> object:
    if isinstance(value, Expanded) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise fault(f"expected a whole number, found {show(value)}")


def _flag(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, Expanded) and value in ("true", "false"):
        return value == "true"
    meant = {"on": "true", "yes": "true", "off": "false", "no": "false"}.get(str(value).lower(), "")
    raise fault(f"expected true or false, found {show(value)}", f"did you mean '{meant}'?" if meant else "")


Text = Annotated[str, BeforeValidator(_text)]
Number = BeforeValidator(_number)
"""Marks an `int`, outside of its bounds: `Annotated[int, Field(ge=1), Number]`."""
Flag = Annotated[bool, BeforeValidator(_flag)]


def _or(word: str, parse: Callable[[object], T]) -> Callable[[object], T | None]:
    def validate(value: object) -> T | None:
        if value == word:
            return None
        try:
            return parse(value)
        except UnitError as error:
            hint = (
                f"did you mean '{word}'?"
                if value in _ENDLESS
                else error.hint.replace("expected", f"expected {word} or", 1)
            )
            raise UnitError(str(error), hint) from error

    return validate


_ENDLESS = ("never", "unlimited", "off", "none", "infinite")
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|d|h|m|s))+$", "examples": ["250ms", "10s", "5m", "1h30m"]}
_SIZE_TEXT = {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$", "examples": ["64KiB", "1MiB"]}
_SIZE = {"anyOf": [{"type": "integer", "minimum": 0}, _SIZE_TEXT]}


def _word(word: str, schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": word}, *schema.get("anyOf", [schema])]}, mode="validation")


def _validator(parse: Callable[[object], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: _attempt(parse, value))


def _shown(show_value: Callable[[int], str], none: str = "") -> PlainSerializer:
    return PlainSerializer(lambda value: none if value is None else show_value(value), return_type=str)


def _positive(value: object) -> int:
    milliseconds = units.duration(value)
    if milliseconds == 0:
        raise UnitError("expected more than 0s", "")
    return milliseconds


def _limit(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 1 << 53:
        return value
    if isinstance(value, Expanded) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    raise UnitError(f"{show(value)} is not a number from 1 up", "expected a number")


Duration = Annotated[
    int, _validator(units.duration), _shown(units.show_duration), WithJsonSchema(_DURATION, mode="validation")
]
OptionalDuration = Annotated[
    int | None,
    _validator(_or("never", units.duration)),
    _shown(units.show_duration, "never"),
    _word("never", _DURATION),
]
PositiveDuration = Annotated[
    int, _validator(_positive), _shown(units.show_duration), WithJsonSchema(_DURATION, mode="validation")
]
OptionalPositiveDuration = Annotated[
    int | None,
    _validator(_or("never", _positive)),
    _shown(units.show_duration, "never"),
    _word("never", _DURATION),
]
Size = Annotated[int, _validator(units.size), _shown(units.show_size), WithJsonSchema(_SIZE, mode="validation")]
SizeLimit = Annotated[
    int | None,
    _validator(_or("unlimited", units.size)),
    _shown(units.show_size, "unlimited"),
    _word("unlimited", _SIZE),
]
Limit = Annotated[
    int | None,
    _validator(_or("unlimited", _limit)),
    _shown(str, "unlimited"),
    _word("unlimited", {"type": "integer", "minimum": 1}),
]

RateLimit = Annotated[
    units.Rate | None,
    _validator(_or("unlimited", units.rate)),
    PlainSerializer(lambda value: "unlimited" if value is None else units.show_rate(value), return_type=str),
    _word("unlimited", {"type": "string", "pattern": "^[0-9]+/[smh]$", "examples": ["100/s", "600/m"]}),
]


ByteRateLimit = Annotated[
    units.Rate | None,
    _validator(_or("unlimited", units.byte_rate)),
    PlainSerializer(lambda value: "unlimited" if value is None else units.show_byte_rate(value), return_type=str),
    _word(
        "unlimited",
        {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?/[smh]$", "examples": ["64KiB/s", "10MiB/m"]},
    ),
]


def _percent(least: int) -> BeforeValidator:
    def validate(value: object) -> int:
        match = re.fullmatch(r"([0-9]{1,3})(%?)", str(value)) if not isinstance(value, bool) else None
        if match and match[2] and least <= int(match[1]) <= 100:
            return int(match[1])
        hint = f"did you mean '{value}%'?" if match and not match[2] else ""
        raise fault(f"expected a share such as 50%, from {least}% to 100%, found {show(value)}", hint)

    return BeforeValidator(validate)


_PERCENT = WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,3}%$", "examples": ["50%"]}, mode="validation")
_SHOWN_PERCENT = PlainSerializer(lambda value: f"{value}%", return_type=str)
Percent = Annotated[int, _percent(1), _SHOWN_PERCENT, _PERCENT]
Share = Annotated[int, _percent(0), _SHOWN_PERCENT, _PERCENT]
"""A percentage that may be none at all."""


def close_code(value: object) -> int:
    """A Close code that may stand on the wire (RFC 6455 §7.4): 1005, 1006 and 1015 never may."""
    code = _number(value)
    assert isinstance(code, int), "_number returns nothing else"
    if 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999:
        return code
    raise fault(f"{code} is not a close code that may be sent", "expected 1000-1003, 1007-1014 or 3000-4999")


_CODE_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 1000, "maximum": 4999}
CloseCode = Annotated[int, BeforeValidator(close_code), WithJsonSchema(_CODE_SCHEMA, mode="validation")]
OptionalCloseCode = Annotated[
    int | None,
    BeforeValidator(lambda value: None if value == "never" else close_code(value)),
    PlainSerializer(lambda value: "never" if value is None else value),
    _word("never", _CODE_SCHEMA),
]


def _origins(value: object) -> object:
    """One rule or several; `any` is none."""
    if value == "any":
        return None
    if isinstance(value, list):
        if not value:
            raise fault("there is no origin in the list", "leave it out, or write any")
        return tuple(value)
    return (value,)


_OriginRule = Annotated[origins.Origin | str, parsed(origins.origin_rule)]
OriginRules = Annotated[
    tuple[_OriginRule, ...] | None,
    BeforeValidator(_origins),
    PlainSerializer(lambda rules: "any" if rules is None else [str(rule) for rule in rules]),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": ["any", "same", "https://*.example.com"]},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        },
        mode="validation",
    ),
]

BindValue = Annotated[Bind, parsed(addresses.bind), PlainSerializer(str)]
NetworkValue = Annotated[Network, parsed(addresses.network), PlainSerializer(str), WithJsonSchema({"type": "string"})]
TargetValue = Annotated[Target, parsed(addresses.target)]
NameServerValue = Annotated[NameServer, parsed(addresses.name_server), PlainSerializer(str)]
NameAndPort = Annotated[str, parsed(addresses.name_and_port)]
LookedUpName = Annotated[str, parsed(addresses.looked_up_name)]
ListUrl = Annotated[str, parsed(addresses.list_url)]
CookieName = Annotated[str, parsed(names.cookie_name)]
HeaderName = Annotated[str, parsed(names.header_name)]
HeaderValue = Annotated[str, parsed(names.header_value)]
Method = Annotated[str, parsed(names.method)]
Subprotocol = Annotated[str, parsed(names.subprotocol)]
UpgradeToken = Annotated[str, parsed(names.upgrade)]
RouteName = Annotated[str, parsed(names.route_name)]
HostPattern = Annotated[str, parsed(names.host_pattern)]
HostName = Annotated[str, parsed(names.host_name)]
ServerName = Annotated[str, parsed(names.server_name)]
ZoneName = Annotated[str, parsed(names.zone_name)]
