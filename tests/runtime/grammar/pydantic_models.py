"""Types of pydantic's fields, and what else a developer's models have, for their JSON schemas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import annotated_types
from pydantic import (
    UUID4,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    FutureDate,
    HttpUrl,
    Json,
    NaiveDatetime,
    NonNegativeInt,
    PositiveFloat,
    SecretStr,
    StrictInt,
    WithJsonSchema,
    conint,
    conlist,
    constr,
)
from typing_extensions import TypedDict


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    """Where somebody lives."""

    street: str = Field(description="Street and number")
    zip: Annotated[str, Field(pattern=r"^\d{5}$")]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Node(BaseModel):
    name: str
    children: list["Node"] = []


class Point(NamedTuple):
    x: int
    y: int


class Movie(TypedDict, total=False):
    title: str
    year: int


@dataclass
class Item:
    name: str
    price: float = 0.0


TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "None": None,
    "bytes": bytes,
    "Any": Any,
    "int | None": int | None,
    "int | str": int | str,
    "pattern": constr(pattern="^[a-z]+$"),
    "pattern, max_length": constr(pattern="^[a-z]+$", max_length=8),
    "look-ahead": Annotated[str, Field(json_schema_extra={"pattern": "^(?=.*[A-Z])(?=.*[0-9]).{8,20}$"})],
    "lengths": constr(min_length=2, max_length=5000),
    "ge, le": conint(ge=1, le=100),
    "gt, lt": Annotated[float, Field(gt=0, lt=1)],
    "gt, le close": Annotated[float, Field(gt=0, le=0.5)],
    "64 bits": conint(ge=-(2**63), le=2**63 - 1),
    "unsigned 64 bits": conint(ge=0, lt=2**64),
    "wide": Annotated[float, Field(ge=-3.4028234663852886e38, le=3.4028234663852886e38)],
    "fine": Annotated[float, Field(ge=0.00011874404507367229)],
    "NonNegativeInt": NonNegativeInt,
    "PositiveFloat": PositiveFloat,
    "StrictInt": StrictInt,
    "multiple_of": Annotated[int, Field(multiple_of=5)],
    "Decimal": Decimal,
    "Decimal of 5 digits": Annotated[Decimal, Field(max_digits=5, decimal_places=2)],
    "date": date,
    "FutureDate": FutureDate,
    "datetime": datetime,
    "AwareDatetime": AwareDatetime,
    "NaiveDatetime": NaiveDatetime,
    "time": time,
    "timedelta": timedelta,
    "UUID": UUID,
    "UUID4": UUID4,
    "HttpUrl": HttpUrl,
    "AnyUrl": AnyUrl,
    "EmailStr": Annotated[str, WithJsonSchema({"type": "string", "format": "email"})],
    "IPv4Address": IPv4Address,
    "IPv6Address": IPv6Address,
    "IPv4Network": IPv4Network,
    "Path": Path,
    "FilePath": FilePath,
    "SecretStr": SecretStr,
    "Base64Bytes": Base64Bytes,
    "Json": Json[list[int]],
    "Enum": Color,
    "IntEnum": Level,
    "Literal": Literal["a", 1, True, None],
    "list": list[int],
    "conlist": conlist(str, min_length=1, max_length=3),
    "Sequence": Sequence[float],
    "tuple": tuple[int, str],
    "tuple of any length": tuple[int, ...],
    "NamedTuple": Point,
    "set": set[int],
    "frozenset": frozenset[Color],
    "dict": dict[str, int],
    "dict of UUID": dict[UUID, int],
    "dict of Enum": dict[Color, int],
    "dict of pattern": dict[Annotated[str, Field(pattern="^x-")], str],
    "dict with a minimum": Annotated[dict[str, int], annotated_types.Len(1, 3)],
    "Mapping": Mapping[str, list[str]],
    "TypedDict": Movie,
    "dataclass": Item,
    "model": Address,
    "models": list[Address],
    "forbid": Closed,
    "allow": Open,
    "default": Annotated[str, Field(default="x", examples=["y"])],
    "union of models": Cat | Dog,
    "discriminator": Annotated[Cat | Dog, Field(discriminator="kind")],
    "recursive": Node,
}
