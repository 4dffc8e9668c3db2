"""Flipped bits, lost segments: what was durable is told as lost, and never dropped in silence."""

from __future__ import annotations

import random
from typing import Any

import pytest
from books import Shelf, Writer, contents, entry, salts, script
from memory import Memory
from support import dose

from engine.errors import DamagedData, RefusedError
from engine.storage.entries import CONFIG, Append, Base, Position, State
from engine.storage.log import Log, LogSettings
from engine.storage.records import HEADER_BYTES, Header, offset_of, pack_header

SMALL = LogSettings(segment_bytes=4096, spare=0, cache_bytes=0)


def opened(folder: Memory, seed: int = 2, settings: LogSettings = SMALL) -> Log:
    return Log.open(folder, settings, salts(seed))


def two_groups(writer: Writer) -> list[tuple[int, int]]:
    """Nearly 4 KiB of everything; (records, offset) after each batch that was acknowledged."""
    writer.put(Base(1, 0, 0, b"first config"), State(1, 1, 1))
    settled = []
    for index in range(1, 9):
        writes: list[Any] = [Append(1, index, (entry(1 + index // 4, b"one %d" % index * 3),))]
        if index % 2:
            writes.append(Append(2, index // 2 + 1, (entry(index, b"two", CONFIG),)))
        if index % 3 == 0:
            writes.append(State(2, index, 2))
        writer.put(*writes)
        settled.append((len(writer.records), offset_of(writer.log._end)))
    assert 3000 < settled[-1][1] < 4096, settled
    return settled


def end_of(book: tuple[Any, ...]) -> Position:
    _, (last, term, _), entries = book
    return Position(entries[-1][0] if entries else term, last + len(entries))


def check_told(log: Log, writer: Writer) -> set[int]:
    """Every group has what was acknowledged or is told as lost up to there: the lost ones."""
    full = writer.shelf.frozen()
    found = contents(log)
    lost = set()
    for number, book in full.items():
        have = found.get(number, ((0, 0), (0, 0, b""), ()))
        group = log.recovered.get(number)
        missing = group.lost if group else None
        if missing is not None:
            lost.add(number)
            assert missing >= end_of(book)
        else:
            assert end_of(have) >= end_of(book), (number, have, book)
        assert have[0] == book[0], "a vote was forgotten"
    return lost


def is_prefix(found: dict[int, Any], writer: Writer) -> bool:
    """Whether the logs (not the hard states, which are known) are those of some earlier moment."""

    def logs(books: dict[int, Any]) -> dict[int, Any]:
        empty = ((0, 0, b""), ())
        return {n: book[1:] for n, book in books.items() if book[1:] != empty}

    shelf = Shelf()
    moments = [logs(shelf.frozen())]
    for record in writer.records:
        shelf.take(record)
        moments.append(logs(shelf.frozen()))
    return logs(found) in moments


def moments(writer: Writer, number: int) -> list[tuple[Any, ...]]:
    """All that the log of a group ever was."""
    shelf, found = Shelf(), []
    for record in writer.records:
        shelf.take(record)
        found.append(shelf.frozen().get(number, ((0, 0), (0, 0, b""), ()))[1:])
    return found


def repair(log: Log, writer: Writer) -> None:
    """Append what is lost again, as a leader would."""
    found = contents(log)
    for number, (_, base, entries) in writer.shelf.frozen().items():
        _, have, mine = found.get(number, ((0, 0), (0, 0, b""), ()))
        if have != base:
            log.append([Base(number, *base)])
            mine = () if have[0] < base[0] else mine
        same = 0
        while same < min(len(mine), len(entries)) and mine[same] == entries[same]:
            same += 1
        if entries[same:]:
            some = tuple(entry(term, body, kind) for term, kind, body in entries[same:])
            log.append([Append(number, base[0] + same + 1, some)])
    log.settle(log.sync())


def test_every_flipped_bit_of_what_was_durable_is_told() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    settled = two_groups(writer)
    name = writer.log._active.name
    whole = bytes(folder.files[name].data)
    last = offset_of(writer.log._told)
    used = settled[-1][1]
    seen = {"lost": 0, "harmless": 0, "torn": 0}
    full = writer.shelf.frozen()
    bits = range(len(whole) * 8)
    for bit in bits:
        left = Memory()
        left.create(name).inode.data[:] = whole
        left.files[name].data[bit // 8] ^= 1 << bit % 8
        log = opened(left)
        found = contents(log)
        assert is_prefix(found, writer)
        lost = check_told(log, writer)
        inside = HEADER_BYTES <= bit // 8 < last
        assert any(finding.damage for finding in log.findings) == inside, bit
        seen["lost" if lost else "harmless" if found == full else "torn"] += 1
        if not inside:
            assert not lost
            assert found == full, "only the watermark behind the last batch may be dropped"
        if bit % 35 == 0 or bit % 8 == 7:
            again = opened(left, seed=3)
            assert contents(again) == found
            assert {n for n, group in again.recovered.items() if group.lost} == lost
            repair(again, writer)
            healed = opened(left, seed=4)
            assert check_told(healed, writer) == set()
            assert contents(healed) == full
    assert seen["torn"] == 0
    assert seen["lost"] > len(bits) * used // len(whole) // 2
    assert seen["harmless"] > 0


def test_damage_is_told_while_the_next_batch_is_on_its_way() -> None:
    """A batch that was durable, behind which another one was written before that was known."""
    folder = Memory()
    log = opened(folder)
    first = log.append([Append(1, 1, (entry(1, b"first"),))])
    log.sync()
    log.append([Append(1, 2, (entry(1, b"second"),))], later=True)
    log.settle(first, tell=False)
    log.tell()
    left = folder.copy()
    data = left.files[log._active.name].data
    data[bytes(data).index(b"first")] ^= 1
    recovered = opened(left).recovered[1]
    assert recovered.terms == []
    assert recovered.lost is not None
    assert recovered.lost >= Position(1, 1)


def test_a_torn_last_batch_is_no_damage() -> None:
    """A flip in a batch that no watermark covers may be a torn write: it is dropped."""
    folder = Memory()
    writer = Writer(opened(folder))
    two_groups(writer)
    before = writer.shelf.frozen()
    begin = offset_of(writer.log._end)
    writer.log.append([Append(1, 9, (entry(9, b"never acknowledged"),))])
    name = writer.log._active.name
    for at in range(begin, offset_of(writer.log._end)):
        left = folder.copy()
        left.files[name].data[at] ^= 16
        log = opened(left)
        assert not any(finding.damage for finding in log.findings)
        found = contents(log)
        assert {n: book for n, book in found.items() if n == 2} == {2: before[2]}
        assert found[1][:2] == before[1][:2]
        assert found[1][2][:8] == before[1][2]


@pytest.mark.parametrize("seed", sorted({*range(dose(15, 300)), 224}))
def test_random_damage_of_many_segments(seed: int) -> None:
    settings = LogSettings(segment_bytes=2048, spare=1, cache_bytes=0, step_bytes=2048)
    rng = random.Random(seed)
    folder = Memory()
    writer = Writer(opened(folder, 1, settings))
    script(writer, rng, 40)
    writer.settle()
    while writer.log.maintain():
        pass
    names = [name for name in folder.names() if name.startswith("log-")]
    for _ in range(10):
        left = folder.copy()
        name = rng.choice(names)
        data = left.files[name].data
        action = rng.randrange(4)
        if action == 0:
            left.remove(name)
        elif action == 1:
            del data[rng.randrange(len(data)) :]
        elif action == 2:
            begin = rng.randrange(len(data))
            data[begin : begin + 512] = bytes(len(data[begin : begin + 512]))
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        log = opened(left, 2, settings)
        if name == names[-1] or writer.log.untold:
            continue  # nothing but its end knows that it had one, or there was no room to say so
        lost = check_told(log, writer)
        for number, book in contents(log).items():
            assert (number in lost and not book[2]) or book[1:] in moments(writer, number)
        again = opened(left, 3, settings)
        assert contents(again) == contents(log)
        assert {n for n, group in again.recovered.items() if group.lost} == lost
        repair(again, writer)
        assert check_told(opened(left, 4, settings), writer) == set()


def test_damage_is_told_until_the_log_is_as_far_again() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    writer.put(State(1, 5, 3), *(Append(1, i, (entry(i, b"%d" % i),)) for i in range(1, 4)))
    writer.put(Append(1, 4, (entry(4, b"4"),)))
    name = writer.log._active.name
    at = bytes(folder.files[name].data).index(b"2\0\0\0\0\0\0\0")
    folder.files[name].data[at] ^= 1
    for life in range(3):
        log = opened(folder, seed=life)
        group = log.recovered[1]
        assert (group.term, group.vote, group.terms, group.lost) == (5, 3, [1], Position(4, 4))
        assert any(finding.damage for finding in log.findings) == (life == 0)
    log.append([Append(1, 2, (entry(2, b"2"), entry(3, b"3")))])
    log.settle(log.sync())
    log = opened(folder, seed=7)
    assert log.recovered[1].lost == Position(4, 4)
    while not log.maintain():
        log.append([State(2, log._end, 0)])  # through several segments
        log.settle(log.sync())
        if len(log._segments) > 8:
            break
    log = opened(folder, seed=8)
    assert log.recovered[1].lost == Position(4, 4)
    assert name in folder.names(), "the damaged segment stays"
    log.append([Append(1, 4, (entry(5, b"another"),))])
    log = opened(folder, seed=9)
    assert log.recovered[1].lost is None
    assert log.recovered[1].terms == [1, 2, 3, 5]


def test_damaged_segments_stay_as_long_as_something_is_lost() -> None:
    """What is left in them may be worth something to whoever looks into it."""
    folder = Memory()
    writer = Writer(opened(folder))
    writer.put(*(Append(1, i, (entry(i, b"body %d" % i),)) for i in range(1, 4)))
    name = writer.log._active.name
    folder.files[name].data[bytes(folder.files[name].data).index(b"body 1")] ^= 1

    def go_on(log: Log) -> None:
        for term in range(300):
            log.append([State(2, term, 0)])
            log.settle(log.sync())
            log.maintain()

    log = opened(folder)
    assert (log.recovered[1].terms, log.recovered[1].lost) == ([], Position(3, 3))
    go_on(log)
    assert name in folder.names()
    log.append([Base(1, 3, 3, b"")])
    go_on(log)
    assert name not in folder.names()


def test_what_is_read_is_verified() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    writer.put(*(Append(1, i, (entry(i, b"body %d" % i),)) for i in range(1, 5)))
    name = writer.log._active.name
    at = bytes(folder.files[name].data).index(b"body 3")
    folder.files[name].data[at] ^= 1
    assert len(writer.log.entries(1, 1, 2, 1000)) == 2
    with pytest.raises(DamagedData) as caught:
        writer.log.entries(1, 2, 4, 1000)
    assert caught.value.path == name


def test_a_log_of_another_version_is_refused() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    name = writer.log._active.name
    data = folder.files[name].data
    import struct

    from engine.kernels.checksum import crc32c

    other = pack_header(Header(1, 1, 0, 0))
    other = other[:8] + struct.pack("<I", 2) + other[12:-4]
    data[:HEADER_BYTES] = other + struct.pack("<I", crc32c(other))
    with pytest.raises(RefusedError, match="format 2"):
        opened(folder)


def test_stale_segments_of_an_earlier_life_verify_nowhere() -> None:
    """The bytes of one segment under the name of another, as after a rename that was lost."""
    folder = Memory()
    settings = LogSettings(segment_bytes=2048, spare=0, cache_bytes=0)
    writer = Writer(opened(folder, 1, settings))
    for index in range(1, 60):
        writer.put(Append(1, index, (entry(1, b"." * 60),)))
    names = [name for name in folder.names() if name.startswith("log-")]
    folder.files[names[1]].data[:] = folder.files[names[2]].data
    log = opened(folder, 2, settings)
    assert check_told(log, writer) == {1}
