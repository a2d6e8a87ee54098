"""What every event has: the stable fields, what is ours about it, and how odd values are taken.

`events` builds the catalogue on this. An event is frozen and loses nothing: dumped by alias with
unset fields left out it is the object received.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cached_property
from types import NoneType
from typing import Annotated, Any, ClassVar, NamedTuple, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from pydantic.alias_generators import to_camel

from cti_listener import values
from cti_listener.values import EventKey, Payload

Text = str | None
Number = Annotated[int, Strict()] | None
Flag = Annotated[bool, Strict()] | None

_READINGS: dict[Any, Callable[[object], object]] = {
    str: values.plain_text,
    int: values.plain_int,
    bool: values.plain_bool,
}


class _Reading(NamedTuple):
    """How a field is read leniently."""

    name: str
    take: Callable[[object], object]
    """Takes an odd value for what it plainly means."""
    due: frozenset[type] | None
    """The types of the values that are not odd; None where the validator has to tell."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is ours about an event; never dumped with it.

    Attributes:
        received_at: When its bytes were handed to the codec, aware; None for an event made by hand.
        feed: Which connection brought it, `a` for the first.
        zone: Where the server's clock hangs; None means China Standard Time.
        redelivered: An earlier run may have begun to handle it.
        late: It came after events that should have followed it.
    """

    received_at: datetime | None = None
    feed: str = "a"
    zone: tzinfo | None = None
    redelivered: bool = False
    late: bool = False


NOT_DELIVERED = Delivery()


class WireObject(BaseModel):
    """An object of the wire, read strictly first.

    A value of an unexpected type is taken where its meaning is plain (`"8343300"` for a serial); it
    stays, as received, among the extra fields, and the field of the model holds our reading of it.
    """

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel)

    _readings: ClassVar[dict[str, _Reading]]
    _names: ClassVar[frozenset[str]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._readings = {
            field.alias or name: _reading(name, field.annotation)
            for name, field in cls.model_fields.items()
        }
        cls._names = frozenset(
            name for name, field in cls.model_fields.items() if field.alias != name
        )

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Build the model from an object as received; never fails on a value."""
        try:
            made = cls.__pydantic_validator__.validate_python(payload)
        except ValidationError:
            made = cls._read_leniently(payload)
        extra = made.__pydantic_extra__
        if extra and not cls._names.isdisjoint(extra):
            _unset_namesakes(made, payload)
        return made  # type: ignore[no-any-return]  # validate_python is untyped

    @classmethod
    def read_text(cls, text: bytes, load: Callable[[bytes], Payload]) -> Self:
        """Do the same from the JSON text of an object, in one go.

        Args:
            text: The text.
            load: Makes the object of it, for odd values and extra names.
        """
        payload = None
        try:
            made = cls.__pydantic_validator__.validate_json(text)
        except ValidationError:
            payload = load(text)
            made = cls._read_leniently(payload)
        extra = made.__pydantic_extra__
        if extra and not cls._names.isdisjoint(extra):
            _unset_namesakes(made, load(text) if payload is None else payload)
        return made  # type: ignore[no-any-return]  # as above

    @classmethod
    def _read_leniently(cls, payload: Payload) -> Self:
        """Take the odd values by their plain meaning and keep them, as received, beside it."""
        readings = cls._readings
        plain = {}
        odd: set[str] = set()
        for alias, value in payload.items():
            reading = readings.get(alias)
            if reading is None:
                continue
            if reading.due is None or type(value) in reading.due:
                plain[alias] = value
            else:  # quicker found here than in the validator's errors
                odd.add(alias)
        try:
            made = cls.__pydantic_validator__.validate_python(plain)
        except ValidationError as error:
            odd |= {str(e["loc"][0]) for e in error.errors(include_url=False)}
            plain = {alias: value for alias, value in plain.items() if alias not in odd}
            made = cls.__pydantic_validator__.validate_python(plain)
        made.__pydantic_extra__.update((a, payload[a]) for a in payload if a not in plain)
        for alias in odd:
            name, take, _ = readings[alias]
            value = take(payload[alias])
            if value is not None:
                made.__dict__[name] = value
        return made  # type: ignore[no-any-return]  # validate_python is untyped

    def as_received(self) -> dict[str, Any]:
        """Return the object as it was received."""
        try:
            return self.model_dump(by_alias=True, exclude_unset=True)
        except UnicodeEncodeError:  # a name with a lone surrogate, which pydantic dumps not
            return self._as_received_by_hand()

    def _as_received_by_hand(self) -> dict[str, Any]:
        said = {
            field.alias or name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if name in self.model_fields_set
        }
        for name, value in said.items():
            if isinstance(value, WireObject):
                said[name] = value.as_received()
        return deepcopy({**said, **(self.model_extra or {})})

    def __repr_args__(self) -> Any:
        """Show what is set, in the model's order, not the two dozen fields that are not."""
        for name in type(self).model_fields:
            if (value := getattr(self, name)) not in (None, ""):
                yield name, value
        yield from (self.model_extra or {}).items()


def _reading(name: str, annotation: Any) -> _Reading:
    """Tell how to read a field of this type leniently; most have no plain reading."""
    kinds = get_args(annotation)
    for kind in kinds:
        bare = get_origin(kind) or kind
        if bare is Annotated:  # Annotated[int, Strict()] -> int
            bare = kind.__origin__
        if bare in _READINGS:
            due = frozenset({bare, NoneType}) if NoneType in kinds else frozenset({bare})
            return _Reading(name, _READINGS[bare], due)
    return _Reading(name, _no_reading, None)


def _no_reading(value: object) -> None:  # noqa: ARG001 - one signature for every reading
    return None


def _unset_namesakes(made: WireObject, payload: Payload) -> None:
    """Keep an extra `call_id` on the wire from passing for our `call_id`, which is `callId`."""
    for alias, (name, _, _) in made._readings.items():  # noqa: SLF001 - own class
        if name != alias and name in payload and alias not in payload:
            made.__pydantic_fields_set__.discard(name)


class Event(WireObject):
    """What every event has, whatever its name.

    The first eight fields are the ones the vendor promises to keep (catalogue, section 1); every
    field may be absent. `agent_id` comes with agent events only: nothing in a csta event tells the
    agent.
    """

    event_name: str = ""
    call_id: Text = None
    namespace: Text = None
    agent_id: Text = None
    calling_device: Text = None
    called_device: Text = None
    event_type: Text = None
    event_time_text: Text = Field(default=None, alias="eventTime")
    serial: Number = None
    src_device_id: Text = None
    device_id: Text = None
    event_src: Any = None

    own_field: ClassVar[str | None] = None
    """The field that names the device it happened to; None where it is always the device itself."""

    @cached_property
    def delivery(self) -> Delivery:
        """What is ours about it: when and how it came."""
        return NOT_DELIVERED

    @cached_property
    def device(self) -> str | None:
        """The routing key: the device whose subscription produced this copy."""
        return values.routing_key(self.as_received())

    @cached_property
    def own_device(self) -> bool:
        """Whether it is about the device itself, not about another party of its call."""
        if self.own_field is None:
            return True
        named = getattr(self, self.own_field)
        return named is not None and values.full_id(named, self.namespace) == self.device

    @cached_property
    def key(self) -> EventKey:
        """What dedupe compares."""
        return EventKey(*values.identity(self.as_received(), self.device))

    @cached_property
    def event_time(self) -> datetime | None:
        """When it happened by the server's clock, aware, whole seconds; None if unreadable.

        `event_time_text` is the text as received.
        """
        text = self.event_time_text
        return values.read_time(text, self.delivery.zone) if text else None

    def __hash__(self) -> int:
        # Of fields alone, as equality is; the key's digest tells an absent field from a null one.
        return hash((self.event_name, self.namespace, self.serial, self.call_id, self.device_id))
