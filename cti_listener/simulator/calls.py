"""One call: its ids, its parties, and the copies each device gets of what happens in it.

The fields are the catalogue's, as its examples have them. Newer servers add some, which stand here:

- `callType` on `originated`, `delivered`, `established`, `failed`, `connectionCleared`;
- `callCause` on `delivered`, beside the `cause` that the catalogue's example has;
- `cause` (as FreeSWITCH names them) and `hangupDevice` on `connectionCleared`;
- the whole of `failed` (`failedCode`, `failedMsg`, `cause`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from cti_listener.simulator.parties import Cast, Step

NO_CALL: Final = "0"
"""What `primaryOldCall` says when no call was held."""

NORMAL: Final = "NORMAL_CLEARING"

_TRUNKS: Final = (("1", "172.30.10.8"), ("1", "172.30.10.9"), ("2", "172.30.11.8"))


class Call:
    """A call in the making, and the steps it can take.

    Every method yields one happening: the same fields, once for each device in `to`, by default
    every device in the call. Outside parties never get a copy.

    Args:
        cast: Who takes part.
        calling: Who calls, as a full id.
        called: Who is called.
        call_type: `Inbound`, `Outbound`, `Internal`, `PreDictive`, as newer servers have them.
        queue: The queue it came through.
        original: The call that this one consults about.
    """

    def __init__(
        self,
        cast: Cast,
        calling: str,
        called: str,
        call_type: str,
        *,
        queue: str | None = None,
        original: Call | None = None,
    ) -> None:
        """Give it an id, and the data that travel with it."""
        self.cast = cast
        self.id = cast.new_id()
        self.calling = calling
        self.called = called
        self.type = call_type
        self.parties = [calling, called]
        self._original = original
        self._queue = queue
        self._line = self._trunk_and_data() if call_type != "Internal" else {}
        if original is not None:
            self._line = {"userData": {"data": {"originalCallId": original.id}}}

    # Making the call

    def initiated(self, delay: float) -> Iterator[Step]:
        """Tell the calling device that it went off hook."""
        who = self.calling
        fields = {**self._changed(who, "Initiate"), "initiatedDevice": who}
        return self._copies(delay, "serviceInitiated", fields, [who])

    def originated(self, delay: float) -> Iterator[Step]:
        """Tell the calling device that the number was dialled."""
        fields = {**self._changed(self.calling, "Initiate"), **self._ends(), "callType": self.type}
        return self._copies(delay, "originated", fields, [self.calling])

    def rings(
        self,
        delay: float,
        who: str,
        *,
        to: Iterable[str] | None = None,
        ends: tuple[str, str] | None = None,
        redirected_from: str | None = None,
        cause: str = "newCall",
    ) -> Iterator[Step]:
        """Ring at `who`; `ends` are calling and called where they are no longer the call's own."""
        fields = {
            **self._changed(who, "Alerting"),
            "cause": cause,
            "alertingDevice": who,
            **self._ends(ends),
            **self._line,
            "callType": self.type,
            "callCause": cause,
        }
        if self._original is not None:
            fields["originalCallId"] = self._original.id
        redirected_from = redirected_from or self._queue
        if redirected_from is not None:
            fields["lastRedirectionDevice"] = redirected_from
        return self._copies(delay, "delivered", fields, to)

    def answered(
        self,
        delay: float,
        who: str,
        *,
        to: Iterable[str] | None = None,
        ends: tuple[str, str] | None = None,
    ) -> Iterator[Step]:
        """Have `who` answer."""
        fields = {
            **self._changed(who, "Connect"),
            "answeringDevice": who,
            **self._ends(ends),
            **self._line,
            "callType": self.type,
        }
        fields.pop("origin_dnis", None)  # the catalogue has it on `delivered` only
        return self._copies(delay, "established", fields, to)

    # During the call

    def held(self, delay: float, who: str) -> Iterator[Step]:
        """Have `who` put the call on hold."""
        return self._copies(delay, "held", {**self._changed(who, "Hold"), "holdingDevice": who})

    def retrieved(self, delay: float, who: str) -> Iterator[Step]:
        """Have `who` take the call back."""
        fields = {**self._changed(who, "Connect"), "retrievingDevice": who}
        return self._copies(delay, "retrieved", fields)

    def transferred(
        self,
        delay: float,
        by: str,
        target: str,
        *,
        consulted: Call | None = None,
        to: Iterable[str] | None = None,
    ) -> Iterator[Step]:
        """Hand this call from `by` to `target`; `consulted` is the call they talked over before."""
        fields = {
            **self._changed(by, "Queued"),
            **self._merged(consulted),
            "transferringDevice": by,
            "transferredToDevice": target,
            "newCall": self.id,
        }
        return self._copies(delay, "transferred", fields, to)

    def conferenced(
        self, delay: float, by: str, added: str, *, consulted: Call | None = None
    ) -> Iterator[Step]:
        """Add `added` to a conference; it is what changed, as in the catalogue's example."""
        fields = {
            **self._changed(added, "Connect"),
            **self._merged(consulted),
            "conferencingDevice": by,
            "addedParty": added,
            "newCall": self.id,
        }
        return self._copies(delay, "conferenced", fields)

    # Ending the call

    def failed(self, delay: float, code: int, message: str, cause: str) -> Iterator[Step]:
        """Tell the calling device what call recognition heard."""
        fields = {
            **self._changed(self.called, "Fail"),
            "cause": cause,
            **self._ends(),
            "callType": self.type,
            "failedCode": code,
            "failedMsg": message,
        }
        return self._copies(delay, "failed", fields, [self.calling])

    def cleared(
        self,
        delay: float,
        who: str,
        *,
        to: Iterable[str] | None = None,
        cause: str = NORMAL,
        by: str | None = None,
    ) -> Iterator[Step]:
        """Have `who` gone from the call; `by` is who hung up, None if the switch did.

        The state afterwards is `Queued`, as odd as it is: the catalogue's example says so.
        """
        fields = {
            **self._changed(who, "Queued"),
            "cause": cause,
            "releasingDevice": who,
            "callType": self.type,
        }
        if by is not None:
            fields["hangupDevice"] = by
        return self._copies(delay, "connectionCleared", fields, to)

    # Private

    def _copies(
        self, delay: float, name: str, fields: dict[str, Any], to: Iterable[str] | None = None
    ) -> Iterator[Step]:
        """Yield one copy for each device; only the first takes time."""
        for device in self.cast.inside(self.parties if to is None else to):
            yield Step(delay, device, name, fields)
            delay = 0.0

    def _changed(self, device: str, state: str) -> dict[str, Any]:
        """Name the call, the device that changed, and its state afterwards."""
        return {
            "callId": self.id,
            "deviceId": device,
            "localState": state,
            "connectionId": f"{device}|{self.id}",
        }

    def _ends(self, ends: tuple[str, str] | None = None) -> dict[str, Any]:
        calling, called = ends or (self.calling, self.called)
        return {"callingDevice": calling, "calledDevice": called}

    def _merged(self, consulted: Call | None) -> dict[str, Any]:
        """Name the calls before: held and active, or this one alone."""
        if consulted is None:
            return {"primaryOldCall": NO_CALL, "secondaryOldCall": self.id}
        return {"primaryOldCall": self.id, "secondaryOldCall": consulted.id}

    def _trunk_and_data(self) -> dict[str, Any]:
        """Make up what an outside call carries: its trunk, its user data, its queue."""
        rng = self.cast.rng
        group, member = rng.choice(_TRUNKS)
        data = {
            "originalANI": self.calling,
            "originalDNIS": self.called,
            "originalCallId": self.id,
        }
        line: dict[str, Any] = {
            "trunkGroup": group,
            "trunkMember": member,
            "userData": {"data": data},
        }
        if self._queue is not None:
            dialled = str(rng.randrange(5400, 5500))
            data["origin_dnis"] = dialled
            line |= {"split": self._queue, "origin_dnis": dialled}
        return line
