"""Several feeds of one stream: what waits for the other, what is late, what each brought."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.feeds import MOST_HELD, PROOF, STALE, Copy, Feeds
from cti_listener.lives import FIRSTS, KINDS, SURE, WINDOW, Life, Told
from cti_listener.sightings import JUDGED, KEPT, Sighting


class Merged:
    """Two feeds as the pipeline drives them; events are numbers, each of one device."""

    def __init__(self, names: str = "ab") -> None:
        self.feeds = Feeds(names)
        self.now = 0.0
        self.handled: list[Any] = []
        self.late: list[Any] = []
        self._seen: set[int] = set()

    def stood(self, feed: str) -> int:
        return self.feeds.stood(feed, self.now)

    def lost(self, feed: str, silent: float | None = None, *, too_large: bool = False) -> None:
        silent = self.now if silent is None else silent
        for number in self.feeds.lost(feed, silent, self.now, too_large=too_large):
            self._end(number)

    def splice(self, feed: str) -> None:
        self._end(self.feeds.splice_of(feed))

    def _end(self, number: int) -> None:
        for one, late in self.feeds.spliced(number, self.now):
            self._handle(one.key, late=late)

    def reached(self, feed: str, silent: float, hold: float = 0.0) -> float:
        return self.feeds.reached(feed, silent, hold)

    def bring(
        self,
        feed: str,
        *keys: int,
        device: str | None = "1",
        time: str = "2017.03.18 14:13:24",
        kind: str = "csta",
    ) -> None:
        for key in keys:
            self._bring(feed, Copy(device, key, Told(time, kind, key), None))

    def tell(
        self,
        feed: str,
        key: int,
        *,
        time: str | None = "2017.03.18 14:13:24",
        serial: int | None = 0,
        known: bool = False,
    ) -> None:
        number = key if serial == 0 else serial
        if known:
            self._seen.add(key)
        self._bring(feed, Copy("1", key, Told(time, "csta", number), None))

    def _bring(self, feed: str, copy: Copy) -> None:
        key = copy.key
        known = key in self._seen
        new = self.feeds.note(feed, copy, self.now, known=known)
        for one in self.feeds.take_proven():
            self._end(self.feeds.splice_of(one))
        if known or not self.feeds.holds(feed, copy, self.now):
            late = self.feeds.is_late(feed, copy, self.now, known=known)
            self._handle(key, late=late)
            self.feeds.handled(feed, copy, new=new, in_turn=not (known or late))

    def _handle(self, key: int, *, late: bool) -> None:
        if key not in self._seen:
            self._seen.add(key)
            self.handled.append(key)
            if late:
                self.late.append(key)


def both() -> Merged:
    """Feed `a` stands, and `b` has just come."""
    merged = Merged()
    assert merged.stood("a") == 0
    assert merged.stood("b")
    return merged


def test_the_first_feed_has_nobody_to_wait_for() -> None:
    merged = Merged()
    assert merged.stood("a") == 0
    merged.bring("a", 1, 2)
    assert merged.handled == [1, 2]
    assert not merged.feeds.watching


def test_what_a_feed_that_comes_back_is_ahead_with_waits_for_the_other() -> None:
    merged = both()
    merged.bring("b", 3, 4)
    merged.bring("a", 1, 2)
    assert merged.handled == [1, 2]
    merged.bring("a", 3)
    assert merged.handled == [1, 2, 3]  # 4 is still ahead: 3 may be an old event repeated
    assert "1 events held back" in repr(merged.feeds)
    merged.splice("b")
    assert merged.handled == [1, 2, 3, 4]
    assert merged.late == []


def test_a_feed_that_is_behind_is_in_nobodys_way() -> None:
    merged = both()
    merged.bring("a", 1, 2, 3)
    merged.bring("b", 2, 3)
    assert merged.handled == [1, 2, 3]
    assert "0 events held back" in repr(merged.feeds)


def test_many_events_that_came_by_both_show_that_they_are_in_step() -> None:
    merged = both()
    merged.bring("b", *range(100, 100 + PROOF + 1))
    merged.bring("a", *range(1, 100 + PROOF - 1))
    assert merged.feeds.splice_of("b")
    merged.bring("a", 100 + PROOF - 1)
    assert not merged.feeds.watching
    assert merged.handled == list(range(1, 100 + PROOF + 1))  # the last one came by `b`
    assert merged.late == []


def test_what_was_brought_before_a_feed_stood_shows_nothing() -> None:
    merged = Merged()
    merged.stood("a")
    merged.bring("a", *range(PROOF))
    merged.now = 1.0
    merged.stood("b")
    merged.bring("b", *range(PROOF))  # the server repeats them
    assert merged.feeds.splice_of("b")


def test_after_the_hold_it_goes_on_and_what_comes_too_late_is_told_to_be() -> None:
    merged = both()
    merged.bring("b", 3, 4)
    merged.splice("b")
    assert merged.handled == [3, 4]
    merged.bring("b", 5)
    merged.bring("a", 1, 2)
    merged.bring("a", 3, 4, 5, 6)
    assert merged.handled == [3, 4, 5, 1, 2, 6]
    assert merged.late == [1, 2]


def test_an_old_event_repeated_does_not_pass_for_having_caught_up() -> None:
    merged = both()
    merged.bring("b", 1, 5)  # 1 is from before `b` stood, and repeated
    merged.splice("b")
    merged.bring("a", 1, 2, 5, 6)
    assert merged.handled == [1, 5, 2, 6]
    assert merged.late == [2]


def test_what_a_feed_that_is_behind_brings_of_a_gap_is_late_once_others_have_gone_on() -> None:
    merged = both()
    merged.bring("a", 4)
    merged.bring("b", 1)  # sent before `a` stood, by a server that is behind
    merged.splice("b")
    merged.bring("b", 2, 3, 4, 5)
    assert merged.handled == [4, 1, 2, 3, 5]
    assert merged.late == [1, 2, 3]


def one_after_the_other() -> Merged:
    """Feed `b` brought 5 and is gone; now `a` has come."""
    merged = Merged()
    merged.stood("b")
    merged.bring("b", 5)
    merged.lost("b")
    merged.stood("a")
    return merged


def test_what_a_feed_brings_that_is_behind_where_another_had_come_before_it_was_lost_is_late() -> (
    None
):
    merged = one_after_the_other()
    merged.bring("a", 3, 4, 5, 6)
    assert merged.handled == [5, 3, 4, 6]
    assert merged.late == [3, 4]


def test_an_odd_time_on_a_feed_that_is_behind_hides_nothing() -> None:
    merged = one_after_the_other()
    merged.bring("a", 2, device="2", time="2999.01.01 00:00:00")
    merged.bring("a", 3, 4, 5, 6)
    assert merged.late == [3, 4]


def test_of_other_kinds_it_is_late_too_until_it_has_come_as_far() -> None:
    merged = one_after_the_other()
    merged.bring("a", 11, kind="agent")  # numbers of another kind say nothing
    merged.bring("a", 4)
    merged.bring("a", 12, kind="agent")
    merged.bring("a", 5)
    merged.bring("a", 13, kind="agent")
    assert merged.late == [4, 12]


def test_of_two_kinds_in_one_second_each_has_its_own_place() -> None:
    for kinds in (("csta", "agent"), ("agent", "csta")):
        merged = Merged()
        merged.stood("b")
        for kind in kinds:
            merged.bring("b", 12 if kind == "agent" else 5, kind=kind)
        merged.lost("b")
        merged.stood("a")
        merged.bring("a", 4)
        merged.bring("a", 11, kind="agent")
        assert merged.late == [4, 11]


def test_an_old_event_repeated_shows_not_that_what_follows_is_behind_but_two_do() -> None:
    merged = Merged()
    merged.stood("b")
    merged.bring("b", 3, 4, 5)
    merged.lost("b")
    merged.stood("a")
    merged.bring("a", 3, 3)  # one of them
    merged.bring("a", 11, kind="agent")
    merged.bring("a", 4)
    merged.bring("a", 12, kind="agent")
    assert merged.handled == [3, 4, 5, 11, 12]
    assert merged.late == [12]


def test_numbers_of_another_counter_say_not_how_far_it_has_come() -> None:
    merged = one_after_the_other()
    merged.bring("a", 1_000_050, device="2", kind="another namespace")
    merged.bring("a", 4)
    assert merged.late == [4]


def test_what_has_no_number_stands_for_nothing_where_another_has_one() -> None:
    merged = Merged()
    merged.stood("b")
    merged.tell("b", 1, serial=None)
    merged.bring("b", 50)
    merged.lost("b")
    merged.stood("a")
    merged.tell("a", 2, serial=None)
    merged.bring("a", 40)
    assert merged.late == [40]


def test_what_was_held_is_late_though_its_feed_has_come_as_far_meanwhile() -> None:
    merged = Merged()
    merged.stood("a")
    merged.bring("a", 4)
    merged.now = 1.0
    merged.stood("b")
    merged.bring("b", 2, 3, 4)
    merged.splice("b")
    assert merged.handled == [4, 2, 3]
    assert merged.late == [2, 3]


def test_what_a_later_life_held_is_late_behind_what_an_earlier_one_held() -> None:
    merged = both()
    merged.bring("b", 5)
    merged.lost("b")
    merged.stood("b")
    merged.bring("b", 3, 4)
    for key in range(1000, 1000 + PROOF):
        merged.bring("a", key, device="2")
        merged.bring("b", key, device="2")
    assert [key for key in merged.handled if key < 1000] == [5, 3, 4]
    assert merged.late == [3, 4]


@pytest.mark.parametrize("time", ["2017.03.18 13:13:25", "N/A"])
def test_a_clock_that_is_set_back_makes_nothing_late_for_long(time: str) -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    merged.splice("b")
    merged.bring("a", 1)
    merged.bring("b", 1)
    merged.tell("a", 2, time=time)
    merged.bring("b", 2)
    for feed in "ab":
        merged.lost(feed)
        merged.stood(feed)
        merged.splice(feed)
    merged.bring("a", 3, 4, time="2017.03.18 13:13:26")
    assert merged.late == []


def test_an_event_that_comes_in_many_lives_is_kept_by_those_that_matter() -> None:
    life = Life("a", 0.0)
    seen = Sighting(life, 0.0, Told("2017.03.18 14:13:24", "csta", 1), both=True)
    for _ in range(10):
        assert not seen.add(Life("a", 0.0))
        seen.add(Life("b", 0.0))
    latest = Life("b", 0.0)
    assert not seen.add(latest)
    assert seen.shared
    assert (seen.lives[0], len(seen.lives), seen.lives[-1]) == (life, 3, latest)


def test_once_it_has_come_further_what_is_out_of_order_is_the_servers_own_disorder() -> None:
    merged = one_after_the_other()
    merged.bring("a", 7, device="2")
    merged.bring("a", 4)
    assert merged.handled == [5, 7, 4]
    assert merged.late == []


def test_what_is_held_while_another_brings_what_was_told_later_is_late() -> None:
    merged = one_after_the_other()
    merged.stood("b")
    merged.bring("b", 6)  # its server is behind
    merged.bring("a", 8)
    merged.splice("b")
    assert merged.handled == [5, 8, 6]
    assert merged.late == [6]


def test_what_a_splice_let_go_counts_as_handled() -> None:
    merged = both()
    merged.bring("b", 5)
    merged.splice("b")
    merged.lost("b")
    merged.lost("a")
    merged.stood("a")
    merged.bring("a", 4)
    assert merged.handled == [5, 4]
    assert merged.late == [4]


def test_a_kind_of_which_it_brought_nothing_yet_is_judged_by_time() -> None:
    merged = Merged()
    merged.stood("b")
    merged.bring("b", 5, time="2017.03.18 14:13:25")
    merged.lost("b")
    merged.stood("a")
    merged.bring("a", 11, kind="agent", time="2017.03.18 14:13:24")
    merged.bring("a", 12, kind="agent", time="2017.03.18 14:13:25")
    assert merged.late == [11]


def test_what_a_feed_brings_again_in_another_life_is_seen_once() -> None:
    merged = Merged()
    for _ in range(3):
        merged.stood("a")
        merged.bring("a", 1)
        merged.lost("a")
    assert merged.feeds.stats()["a"].seen == 1


def test_what_was_handled_too_long_ago_makes_nothing_late() -> None:
    merged = one_after_the_other()
    merged.bring("a", 7, device="2", kind="agent")
    for _ in range(2):
        merged.now += KEPT
        merged.bring("a", int(merged.now), device="2", kind="agent")
    merged.bring("a", 4)
    assert merged.late == []


def test_two_halves_of_a_stream_are_not_late_for_each_other() -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    for number in range(JUDGED):
        merged.bring("a", number)
        merged.bring("b", 10_000 + number)
    for turn in (2, 4):
        merged.now = turn * KEPT
        merged.bring("b", 20_000 + turn)
    assert merged.feeds.apart
    merged.late.clear()
    merged.lost("a")
    merged.stood("a")
    merged.splice("a")
    merged.bring("a", JUDGED)
    assert merged.late == []


def test_feeds_that_share_some_of_their_events_can_be_late_for_each_other() -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    for number in range(10 * JUDGED):
        merged.bring("a", number)
        if number % 10 < 3:
            merged.bring("b", number)
    for turn in (2, 4):
        merged.now = turn * KEPT
        merged.bring("b", 20_000 + turn)
    assert merged.feeds.apart
    merged.lost("a")
    merged.bring("b", 20_100)
    merged.lost("b")
    merged.stood("a")
    merged.bring("a", 20_099)  # its server is behind
    assert merged.late == [20_099]


def test_what_a_feed_brings_before_it_stands_is_of_one_life() -> None:
    merged = Merged()
    merged.bring("a", 5, 4)
    assert merged.late == []


def test_nothing_is_late_for_what_the_other_feed_will_never_bring() -> None:
    merged = both()
    merged.bring("b", 1)  # sent before `a` stood, by a server that is behind
    merged.splice("b")
    merged.bring("a", 2, 3)
    assert merged.handled == [1, 2, 3]
    assert merged.late == []


def test_of_other_devices_nothing_is_late() -> None:
    merged = both()
    merged.bring("b", 3, device="1")
    merged.splice("b")
    merged.bring("a", 11, device="2")
    merged.bring("b", 4, device="1")
    assert merged.late == []


def test_nothing_is_called_late_for_ever() -> None:
    merged = both()
    merged.bring("b", 3)
    merged.splice("b")
    merged.now += STALE
    merged.bring("a", 7)
    assert merged.late == []
    merged.bring("a", *range(100, 100 + PROOF))
    merged.bring("b", *range(100, 100 + PROOF))
    assert not merged.feeds.watching


def test_beside_a_feed_that_brings_nothing_no_memory_grows() -> None:
    merged = both()
    merged.bring("b", 1)
    merged.splice("b")
    sizes = []
    for key in range(2, 1000):
        merged.now += 1.0
        merged.bring("b", key)
        sizes.append(merged.feeds.overtaken)
    assert max(sizes) <= STALE


def test_what_a_server_repeats_from_a_gap_is_late_once_others_have_passed_it() -> None:
    merged = both()
    merged.bring("b", 3)  # sent while nobody listened, and repeated
    merged.now += 0.1
    merged.bring("a", 7)
    merged.bring("b", 7)  # behind 3 on this very feed
    merged.splice("b")
    assert merged.handled == [7, 3]
    assert merged.late == [3]


def test_what_is_held_behind_another_that_the_other_feed_brings_first_is_late() -> None:
    merged = both()
    merged.bring("b", 3, 7)
    merged.bring("a", 7)
    merged.splice("b")
    assert merged.handled == [7, 3]
    assert merged.late == [3]


def test_what_one_feed_is_spliced_in_with_passes_what_a_third_holds() -> None:
    merged = Merged("abc")
    for feed in "abc":
        merged.stood(feed)
    merged.bring("c", 1, 2)
    merged.bring("b", 2)
    merged.splice("b")
    merged.splice("c")
    assert merged.handled == [2, 1]
    assert merged.late == [1]


def test_nothing_is_late_for_what_a_feed_that_was_ahead_and_came_back_holds() -> None:
    merged = both()
    merged.bring("b", 3)
    merged.splice("b")
    merged.bring("a", 3)
    merged.lost("b")
    merged.stood("b")
    merged.bring("b", 6)
    merged.bring("a", 5, 6)
    assert merged.handled == [3, 5, 6]
    assert merged.late == []


def test_what_is_held_is_not_late_for_an_old_event_that_is_repeated_behind_it() -> None:
    merged = both()
    merged.bring("b", 5)
    merged.now += 0.1
    merged.bring("a", 1)  # it is behind
    merged.bring("b", 1)  # repeated
    merged.splice("b")
    assert merged.handled == [1, 5]
    assert merged.late == []


def test_what_is_held_is_not_late_for_what_its_own_feed_repeats_behind_it() -> None:
    merged = both()
    merged.bring("a", 7)
    merged.bring("b", 7, 3, 7)
    merged.splice("b")
    assert merged.handled == [7, 3]
    assert merged.late == []


def test_what_is_held_longer_than_the_other_needs_is_not_late() -> None:
    merged = both()
    merged.bring("b", 3)
    merged.bring("a", 1)
    merged.splice("b")
    assert merged.handled == [1, 3]
    assert merged.late == []


def test_the_loss_of_the_other_ends_the_waiting() -> None:
    merged = both()
    merged.bring("b", 3, 4)
    merged.bring("a", 1)
    merged.lost("a")
    assert merged.handled == [1, 3, 4]
    merged.bring("b", 5)
    assert merged.handled == [1, 3, 4, 5]
    assert not merged.feeds.watching


def test_what_a_feed_brought_before_it_was_lost_again_is_not_lost() -> None:
    merged = both()
    merged.bring("b", 3)
    merged.lost("b")
    merged.stood("b")
    merged.bring("b", 6, 7)
    merged.bring("a", 1, 2, 3)
    assert merged.handled == [1, 2, 3]
    merged.bring("a", 4, 5, 6)
    merged.splice("b")
    assert merged.handled == [1, 2, 3, 4, 5, 6, 7]
    assert merged.late == []


def test_what_a_lost_feed_left_held_goes_on_when_the_other_is_lost_too() -> None:
    merged = both()
    merged.bring("b", 3)
    merged.lost("b")
    merged.bring("a", 1)
    merged.lost("a")
    assert merged.handled == [1, 3]


def test_the_number_of_a_splice_tells_an_old_one_from_a_new_one() -> None:
    merged = both()
    first = merged.feeds.splice_of("b")
    merged.lost("b")
    merged.stood("b")
    assert merged.feeds.splice_of("b") not in (0, first)
    merged.splice("b")
    assert merged.feeds.splice_of("b") == 0


def test_no_more_is_held_back_than_there_is_room_for() -> None:
    merged = both()
    merged.bring("b", *range(MOST_HELD))
    assert not merged.feeds.full("b")
    merged.bring("b", MOST_HELD)
    assert merged.feeds.full("b")


def test_it_is_told_what_each_feed_brought() -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    merged.bring("a", 1, 2, 3)
    merged.now = 0.5
    merged.bring("b", 1, 2)
    merged.bring("b", 2, 9)  # 2 again, which says nothing
    merged.now = 1.5
    merged.bring("a", 9)
    merged.now = 3 * KEPT
    merged.bring("a", 100)
    merged.now = 5 * KEPT
    merged.bring("a", 101)
    a, b = merged.feeds.stats()["a"], merged.feeds.stats()["b"]
    assert (a.seen, a.first, a.alone, a.lead, a.lag) == (6, 5, 1, 0.5, 1.0)
    assert (b.seen, b.first, b.alone, b.lead, b.lag) == (3, 1, 0, 1.0, 0.5)
    assert (a.connected, b.connected) == (True, True)


def test_feeds_that_share_nothing_show_in_the_share() -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    for number in range(JUDGED):
        merged.bring("ab"[number % 2], number)
    assert merged.feeds.share == 0.0  # nothing to judge by
    for turn in (1, 2):
        merged.now = turn * 2 * KEPT
        merged.bring("a", 10_000 + turn)
    assert merged.feeds.apart
    assert merged.feeds.share == 0.0


@pytest.mark.parametrize(("brings", "apart"), [(10, False), (6, False), (4, True), (1, True)])
def test_of_ten_events_how_many_the_other_feed_brings_shows_too(brings: int, apart: bool) -> None:  # noqa: FBT001 - a row's value
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    for number in range(JUDGED):
        merged.bring("a", number)
        if number % 10 < brings:
            merged.bring("b", number)
    for turn in (1, 2):
        merged.now = turn * 2 * KEPT
        merged.bring("a", 10_000 + turn)
    assert (merged.feeds.apart, merged.feeds.share) == (apart, brings / 10)


def test_a_backlog_that_the_other_feed_brought_long_ago_does_not_part_them() -> None:
    merged = Merged()
    merged.stood("a")
    merged.bring("a", *range(JUDGED))
    for turn in (1, 2, 3):
        merged.now = turn * 2 * KEPT
        merged.bring("a", 10_000 + turn)
    merged.stood("b")
    merged.bring("b", *range(JUDGED))
    for number in range(20_000, 20_000 + JUDGED):
        merged.bring("a", number)
        merged.bring("b", number)
    for turn in (4, 5):
        merged.now = turn * 2 * KEPT
        merged.bring("a", 10_000 + turn)
    assert merged.feeds.share == 1.0
    (a, b) = merged.feeds.stats().values()
    assert (b.seen, b.first, b.alone, b.lag) == (2 * JUDGED, 0, 0, 0.0)
    assert a.alone == JUDGED + 3


def test_how_far_a_feed_is_behind_is_told_of_copies_alone() -> None:
    merged = Merged()
    merged.stood("a")
    merged.bring("a", *range(20))
    merged.now = 3 * KEPT
    merged.bring("a", 100)
    merged.now = 5 * KEPT
    merged.stood("b")
    merged.bring("b", *range(20))  # a backlog
    merged.bring("a", 200)
    merged.now += 0.5
    merged.bring("b", 200)
    assert merged.feeds.stats()["b"].lag == 0.5


def test_a_feed_that_fell_silent_and_was_lost_for_it_is_not_apart() -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    silent = 2 * KEPT
    for key in range(1, int(50 * 6 * KEPT)):
        merged.now = key / 50
        merged.bring("b", key)
        if merged.now <= silent:
            merged.bring("a", key)
        elif key / 50 == silent + 12:
            merged.lost("a", silent)
        assert not merged.feeds.apart


# How far a feed has come


def in_step(*, until: float = 100.0) -> Merged:
    """Both feeds stand since long, and brought the same until some seconds ago, one by one."""
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    for second in range(int(until) - 5, int(until)):
        merged.now = float(second)
        merged.bring("b", second)
        merged.bring("a", second)
    merged.now = until
    return merged


def came_back() -> Merged:
    """The same, but `b` was lost then, and came back two seconds later."""
    merged = in_step()
    merged.lost("b")
    merged.now = 102.0
    merged.stood("b")
    return merged


def test_a_feed_that_lacks_nothing_has_come_to_its_end() -> None:
    merged = in_step()
    assert merged.reached("a", 100.0) == 100.0
    merged.bring("a", 100, 101)
    assert merged.reached("a", 100.0) == 100.0


def test_a_feed_that_was_behind_has_come_as_far_as_it_brought_what_the_other_did() -> None:
    merged = in_step()
    merged.bring("b", 100)
    assert merged.reached("a", 100.5) == 99.0
    merged.bring("a", 100)
    assert merged.reached("a", 100.5) == 100.5


def test_a_feed_that_was_behind_with_the_latest_may_have_had_more_of_what_came_since() -> None:
    merged = in_step()
    merged.bring("b", 100)
    merged.now = 101.0
    merged.bring("a", 100)
    merged.lost("b")
    merged.now = 102.0
    merged.bring("a", 101)
    assert merged.reached("a", 102.0) == 100.0
    assert merged.reached("a", 150.0) == 150.0  # what nobody else was told is its own to miss


def test_a_feed_that_was_a_little_behind_may_have_been_so_to_the_end() -> None:
    merged = in_step()
    merged.bring("b", 100)
    merged.now = 100.01
    merged.bring("a", 100)
    assert merged.reached("a", 105.0) == pytest.approx(104.98)


def test_a_feed_that_was_far_behind_once_is_not_taken_to_be_by_more_than_the_window() -> None:
    merged = in_step()
    merged.bring("b", 100)
    merged.now = 108.0
    merged.bring("a", 100)
    assert merged.reached("a", 3600.0) == 3600.0 - WINDOW


def test_a_feed_that_is_lost_as_soon_as_it_stands_has_come_to_its_last_byte() -> None:
    merged = in_step()
    merged.lost("b")
    merged.stood("b")
    assert merged.reached("b", 99.5) == 99.5


def test_what_came_after_its_last_byte_says_nothing_of_a_feed_that_fell_silent() -> None:
    merged = in_step()
    merged.bring("b", 100)
    assert merged.reached("a", 99.5) == 99.5


def test_beside_one_that_has_just_begun_a_feed_that_lacks_something_had_not_come_so_far() -> None:
    merged = came_back()
    merged.bring("b", *range(200, 200 + SURE))
    merged.bring("a", 150, *range(200, 200 + SURE - 1))
    assert merged.reached("a", 102.5) == 99.0
    merged.bring("a", 200 + SURE - 1)
    assert merged.reached("a", 102.5) == 102.5
    merged.now = 103.0
    merged.bring("b", 300)
    assert merged.reached("a", 103.5) == 102.0


def test_what_was_read_after_the_last_byte_of_a_connection_counts_as_come_with_it() -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    merged.now = 2.0
    merged.bring("b", *range(SURE))
    merged.feeds.lost("b", 1.0, merged.now)
    merged.stood("b")
    merged.bring("b", 100)
    merged.bring("a", *range(SURE))
    assert merged.reached("a", 2.0) == 1.0


def test_old_events_that_are_repeated_show_not_that_a_feed_has_come_so_far() -> None:
    merged = came_back()
    merged.bring("b", 150, 200, 201, 151, 202, 203)
    merged.bring("a", 149, 150, 151)
    assert merged.reached("a", 102.5) == 99.0


def test_a_feed_that_brought_what_one_that_came_back_did_had_come_to_where_that_began() -> None:
    merged = came_back()
    merged.bring("a", *range(200, 200 + SURE))
    merged.bring("b", *range(200, 200 + SURE - 1), 300)
    assert merged.reached("a", 102.5, hold=1.0) == 99.0
    merged.bring("b", 200 + SURE - 1)
    assert merged.reached("a", 102.5, hold=1.0) == 102.0
    assert merged.reached("a", 101.5, hold=1.0) == 101.5  # its last byte came before


def test_what_one_that_came_back_repeats_shows_not_that_another_had_come_to_where_it_began() -> (
    None
):
    merged = came_back()
    merged.bring("b", 300, 301)
    for number in range(100, 100 + 10 * SURE):
        merged.bring("a", number)
        if number % SURE:
            merged.bring("b", number)
    assert merged.reached("a", 102.5) == 99.0


def test_a_feed_that_has_yet_to_come_to_what_ended_the_other_has_come_no_farther() -> None:
    merged = in_step()
    merged.lost("a", too_large=True)
    merged.now = 103.0
    merged.bring("b", 200)
    assert merged.reached("b", 99.5) == 99.5
    assert merged.reached("b", 103.0) == 100.0
    assert merged.reached("b", 100.1 + WINDOW) == 100.1 + WINDOW  # it has come past that by then


def test_what_ends_a_feed_that_is_behind_is_what_ended_the_other() -> None:
    merged = in_step()
    merged.lost("a", too_large=True)
    merged.now = 101.0
    merged.stood("a")
    merged.now = 103.0
    assert merged.reached("b", 103.0) == 100.0
    merged.lost("b", too_large=True)
    assert merged.reached("a", 105.0) == 105.0  # it began behind that


def test_a_feed_that_came_past_what_ended_the_other_had_begun_behind_it() -> None:
    merged = in_step()
    merged.lost("a", too_large=True)
    merged.now = 101.0
    merged.stood("a")
    merged.bring("b", *range(200, 200 + SURE))
    merged.bring("a", *range(200, 200 + SURE - 1))
    assert merged.reached("b", 102.0) == 100.0
    merged.bring("a", 200 + SURE - 1)
    assert merged.reached("b", 102.0) == 102.0
    merged.now = 103.0
    merged.lost("b", too_large=True)  # by another, to which the other has yet to come
    assert merged.reached("a", 105.0) == 103.0


def test_one_that_began_since_does_not_come_to_what_ended_another() -> None:
    merged = in_step()
    merged.lost("b")
    merged.now = 100.5
    merged.stood("b")
    merged.now = 101.0
    merged.lost("a", 100.0, too_large=True)
    assert merged.reached("b", 102.0) == 102.0


def test_beside_one_that_is_spliced_in_a_feed_that_has_not_come_so_far_may_be_behind() -> None:
    merged = came_back()
    assert merged.reached("a", 101.5, hold=1.0) == 101.5  # its last byte came before
    assert merged.reached("a", 102.5, hold=1.0) == 101.0
    merged.bring("b", 99)  # an old one, repeated
    for number in (200, 201):
        merged.bring("b", number)
        assert merged.reached("a", 102.5, hold=1.0) <= 101.0
    for number in (200, 201):
        assert merged.reached("a", 102.5, hold=1.0) <= 101.0
        merged.bring("a", number)
    assert merged.reached("a", 102.5, hold=1.0) == 102.5


def test_beside_one_that_was_spliced_in_and_brings_nothing_it_may_be_for_as_long_as_it_can() -> (
    None
):
    merged = came_back()
    merged.now = 103.0
    merged.splice("b")
    merged.now = 120.0  # when it is found dead
    assert merged.reached("a", 102.5, hold=1.0) == 101.0
    assert merged.reached("a", 103.5, hold=1.0) == 101.0  # by more than it was held back for
    assert merged.reached("a", 102.0 + WINDOW, hold=1.0) == 102.0
    assert merged.reached("a", 102.1 + WINDOW, hold=1.0) == 102.1 + WINDOW


def at_the_servers(second: float) -> str:
    return f"2017.03.18 14:{int(second) // 60:02}:{int(second) % 60:02}"


def alone_and_then_beside_one_that_is_back(
    *,
    played: float = 1.0,
    odd: Mapping[int, str | None] = MappingProxyType({}),
    old: Collection[int] = (),
) -> Merged:
    """Both were in step for a minute, `b` was away for five seconds, and is back for a moment.

    Args:
        played: How much faster than ours the server's clock goes.
        odd: What it told instead, by the tenth of a second.
        old: In which of these it repeated one that is known from before, of another time.
    """
    merged = Merged()
    for feed in "ab":
        merged.stood(feed)
    for tenth in range(650):
        merged.now = tenth / 10
        if tenth == 600:
            merged.lost("b")
        if tenth in old:
            merged.tell("a", -tenth, time=at_the_servers(merged.now + 900), known=True)
        for feed in "ab" if tenth < 600 else "a":
            merged.tell(feed, tenth, time=odd.get(tenth, at_the_servers(merged.now * played)))
    merged.now = 65.0
    merged.stood("b")
    return merged


@pytest.mark.parametrize("played", [1.0, 10.0])
def test_the_servers_clock_says_how_far_one_was_that_stood_alone(played: float) -> None:
    merged = alone_and_then_beside_one_that_is_back(played=played)
    merged.now = 65.3
    for key in range(1000, 1005):
        merged.tell("b", key, time=at_the_servers(65.0 * played))
    reached = merged.reached("a", 65.4, 0.5)
    assert 65.0 - 2.2 / played - 0.5 <= reached <= 65.0 - 1.0 / played  # it has five in half one


def test_how_far_a_feed_had_come_that_was_behind_shows_in_the_servers_clock() -> None:
    merged = alone_and_then_beside_one_that_is_back()
    for key in range(700, 703):
        merged.tell("b", key, time=at_the_servers(68))  # it has yet to bring three seconds
    assert 65.0 - 5.5 <= merged.reached("a", 65.4, 0.5) <= 65.0 - 4.0


def test_what_the_other_brings_late_hides_not_how_far_it_was_behind() -> None:
    merged = alone_and_then_beside_one_that_is_back()
    merged.now = 69.0
    for key, second in enumerate((65, 66, 67)):
        merged.tell("b", 1000 + key, time=at_the_servers(second))
    assert 59.5 <= merged.reached("a", 69.5, 0.5) <= 61.0


def test_a_feed_that_stood_late_may_have_begun_before() -> None:
    merged = alone_and_then_beside_one_that_is_back(
        odd={tenth: at_the_servers(61) for tenth in range(640, 650)}
    )
    for key in range(1000, 1003):
        merged.tell("b", key, time=at_the_servers(63))  # since then, but no RECEIPT came
    merged.now = 65.2
    merged.tell("b", 1003, time=at_the_servers(65))
    assert merged.reached("a", 65.4, 0.5) <= 60.2


def test_old_events_with_which_a_feed_begins_show_not_where_it_began() -> None:
    merged = alone_and_then_beside_one_that_is_back()
    merged.tell("b", 1000, time=at_the_servers(30))
    merged.tell("b", 1001, time=at_the_servers(65))  # one such may be old as well
    assert merged.reached("a", 65.4, 0.5) < 60.0
    merged.tell("b", 1002, time=at_the_servers(65))
    assert merged.reached("a", 65.4, 0.5) > 62.0


@pytest.mark.parametrize("second", [40, 48, 56])
def test_a_clock_that_is_put_forward_makes_its_seconds_no_shorter(second: int) -> None:
    forward = {tenth: at_the_servers(tenth / 10 + 3000) for tenth in range(10 * second, 650)}
    merged = alone_and_then_beside_one_that_is_back(odd=forward)
    for key in range(1000, 1003):
        merged.tell("b", key, time=at_the_servers(3068))
    assert 65.0 - 6.0 <= merged.reached("a", 65.4, 0.5) <= 61.0 + 0.05


@pytest.mark.parametrize("odd", [(0, 1), (1, 0), (3500, 3501), (0, 3500), (3500, 0)])
@pytest.mark.parametrize("marks", [(388, 563), (300, 475), (475, 649), (300, 388)])
def test_nor_do_two_odd_times_where_it_is_measured(
    marks: tuple[int, int], odd: tuple[int, int]
) -> None:
    two = {at: at_the_servers(second) for at, second in zip(marks, odd, strict=True)}
    merged = alone_and_then_beside_one_that_is_back(odd=two)
    for key in range(1000, 1003):
        merged.tell("b", key, time=at_the_servers(68))
    assert merged.reached("a", 65.4, 0.5) <= 61.0 + 0.05


def test_events_known_from_before_do_not_measure_it() -> None:
    merged = alone_and_then_beside_one_that_is_back(old=range(300, 650))
    for key in range(1000, 1003):
        merged.tell("b", key, time=at_the_servers(68))
    assert 65.0 - 6.0 <= merged.reached("a", 65.4, 0.5) <= 61.0 + 0.05


def test_old_events_that_come_together_make_its_seconds_no_shorter() -> None:
    backlog = {300 + number: at_the_servers(number * 25) for number in range(10)}
    merged = alone_and_then_beside_one_that_is_back(odd=backlog)
    for key in range(1000, 1003):
        merged.tell("b", key, time=at_the_servers(68))
    assert 65.0 - 6.0 <= merged.reached("a", 65.4, 0.5) <= 61.0 + 0.05


@pytest.mark.parametrize(
    "odd", [at_the_servers(3500), at_the_servers(67), at_the_servers(0), "N/A", None]
)
@pytest.mark.parametrize("tenth", [300, 649])  # of what is followed, the first and the last
def test_an_odd_time_makes_no_gap_shorter(tenth: int, odd: str | None) -> None:
    merged = alone_and_then_beside_one_that_is_back(odd={tenth: odd})
    for key in range(1000, 1003):
        merged.tell("b", key, time=at_the_servers(68))
    assert merged.reached("a", 65.4, 0.5) <= 61.0 + 0.02


@pytest.mark.parametrize("odd", [at_the_servers(3500), at_the_servers(0), "N/A", None])
def test_nor_does_one_of_the_feed_that_is_back(odd: str | None) -> None:
    merged = alone_and_then_beside_one_that_is_back()
    merged.tell("b", 999, time=odd)
    for key in range(1000, 1005):
        merged.tell("b", key, time=at_the_servers(68))
    assert merged.reached("a", 65.4, 0.5) <= 61.0


def alone_since(tenth: int, until: int, written: Callable[[float], str]) -> Merged:
    """Both were in step until then; `b` is back later, and brings what the other lacks."""
    merged = Merged()
    for feed in "ab":
        merged.stood(feed)
    for key in range(until):
        merged.now = key / 10
        for feed in "ba" if key < tenth else "a":
            merged.tell(feed, key, time=written(merged.now))
    merged.lost("b", (tenth - 1) / 10)
    merged.stood("b")
    for key in range(1000, 1003):
        merged.tell("b", key, time=written(until / 10))
    return merged


@pytest.mark.parametrize(
    ("tenth", "until", "written"),
    [
        pytest.param(150, 200, lambda now: str(int(now)), id="it cannot be read"),
        pytest.param(50, 90, at_the_servers, id="a few seconds do not tell how fast it goes"),
    ],
)
def test_where_the_clock_does_not_say_the_last_that_both_brought_does(
    tenth: int, until: int, written: Callable[[float], str]
) -> None:
    merged = alone_since(tenth, until, written)
    assert merged.reached("a", until / 10) == (tenth - 1) / 10


def test_where_it_does_that_is_asked() -> None:
    merged = alone_since(150, 200, at_the_servers)
    assert merged.reached("a", 20.0) > 17.0


def test_no_feed_is_taken_to_be_behind_by_more_than_the_window() -> None:
    merged = Merged()
    merged.stood("a")
    merged.now = 100.0
    merged.stood("b")
    merged.bring("b", 1)
    assert merged.reached("a", 100.0) == 100.0 - WINDOW


def test_what_shows_how_far_a_feed_came_may_be_older_than_that() -> None:
    merged = in_step(until=5.0)
    merged.lost("b")
    merged.now = 3000.0
    merged.stood("b")
    merged.now = 3600.0
    merged.bring("b", 9000)  # the first event for an hour
    assert merged.reached("a", 3600.1) == 3600.1 - WINDOW


@pytest.mark.parametrize("beginning", range(0, int(KEPT), 5))
def test_how_far_a_feed_came_that_fell_silent_is_known_when_it_is_found_dead(
    beginning: int,
) -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    for second in range(beginning, 113):
        merged.now = float(second)
        merged.bring("b", second)
        if second < 100:
            merged.bring("a", second)
    assert merged.reached("a", 100.5) == 99.0


@pytest.mark.parametrize("odd", ["N/A", "2099.01.01 00:00:00"])
def test_an_odd_time_hides_not_what_a_feed_lacks(odd: str) -> None:
    merged = Merged()
    merged.stood("a")
    merged.stood("b")
    for feed in "ba":
        merged.bring(feed, 1000, time=odd)
    for second in range(2 * int(WINDOW)):
        merged.now = float(second)
        merged.bring("b", second)
    assert merged.reached("a", merged.now) == merged.now - WINDOW


def test_where_a_feed_began_is_told_by_so_many_kinds_at_most() -> None:
    life = Life("a", 0.0)
    for number in range(3 * KINDS):
        life.note(Told("2017.03.18 14:13:24", f"kind {number}", number))
    assert len(life.firsts) == KINDS


def test_what_was_told_before_a_feed_began_is_not_missed_there() -> None:
    merged = Merged()
    merged.stood("a")
    merged.now = 1.0
    merged.stood("b")
    merged.bring("b", *range(100, 100 + FIRSTS))
    merged.now = 2.0
    merged.bring("a", 50, 51)  # it is behind
    assert merged.reached("b", 2.0) == 2.0


@pytest.mark.parametrize(
    ("one", "other", "precedes"),
    [
        (("12:00:01", "csta", 9), ("12:00:02", "csta", 1), True),  # the counter restarted
        (("12:00:01", "csta", 1), ("12:00:01", "csta", 2), True),
        (("N/A", "csta", 1), ("12:00:01", "csta", 2), True),  # by its number
        (("12:00:01", "agent", 1), ("12:00:01", "csta", 2), False),  # not to be told
        (("12:00:01", "csta", None), ("12:00:01", "csta", 2), False),
        ((None, "csta", 1), ("12:00:01", "csta", 2), True),
        ((7, "csta", "1"), (8, "csta", "2"), False),
    ],
)
def test_what_the_server_told_first_goes_by_its_time_and_its_number(
    one: tuple[object, ...], other: tuple[object, ...], *, precedes: bool
) -> None:
    assert Told(*one).precedes(Told(*other)) is precedes
    assert not Told(*other).precedes(Told(*one))


@given(st.data())
def test_nothing_is_lost_and_what_is_out_of_order_is_told_to_be(data: st.DataObject) -> None:
    """Two feeds of one stream, cut and lagging as may be, of which one always stands."""
    stream = list(range(1, 40))
    merged = Merged()
    merged.stood("a")
    at = {"a": 0, "b": 0}  # how far each has come
    up = {"a": True, "b": False}
    head = 0  # how far the server has come
    for _ in range(data.draw(st.integers(1, 60))):
        merged.now += 0.01
        step = data.draw(st.sampled_from(["server", "a", "b", "cut", "back", "splice"]))
        if step == "server":
            head = min(head + data.draw(st.integers(1, 3)), len(stream))
        elif step in up and up[step] and at[step] < head:
            merged.bring(step, stream[at[step]])
            at[step] += 1
        elif step == "cut" and all(up.values()):
            # The one that goes has nothing that the other would lack.
            name = data.draw(st.sampled_from("ab"))
            other = "ab"[name == "a"]
            if at[other] <= at[name] or not merged.feeds.splice_of(other):
                up[name] = False
                merged.lost(name)
        elif step == "back" and not all(up.values()):
            name = "a" if up["b"] else "b"
            up[name], at[name] = True, head
            merged.stood(name)
        elif step == "splice":
            merged.splice(data.draw(st.sampled_from("ab")))
    for name in "ab":
        if up[name]:
            merged.bring(name, *stream[at[name] : head])
        merged.splice(name)
    on_time = [one for one in merged.handled if one not in merged.late]
    assert on_time == sorted(on_time)
    assert len(set(merged.handled)) == len(merged.handled)
