"""What clients ask of the store and what they are told: formats, codes, and how to write them.

All frames are msgpack: arrays, integers, byte strings, booleans and nil; no maps, text only where
an answer says what was wrong. Grammar::

    write    = [number, request, …]       1 to 1024 requests, answered in this order
    request  = [session, sequence, op, argument, …]
    session  = b"" | birth:u64 (big-endian, ns of replicated time) random (8 bytes)
    read     = [number, ask, …]           1 to 1024 asks
    ask      = [op, argument, …]
    answers  = [number, answer, …]        to a frame of either kind
    answer   = [code, …]

`number` is the client's own, and given back. A session makes repeating safe: a request with the
sequence (1, 2, 3 …; gaps are allowed) of the one before gets its answer again and is not carried
out. With the session b"" nothing is remembered, and the sequence is any number from 1 on.

An empty answer frame says that the frame was malformed: not one of its requests was carried out,
and whoever sent it cannot be talked to. Everything else is an answer.

Writes, with their answers when all goes well::

    2  PUT           key value lease                -> [OK, revision, version]
    3  APPEND        key value                      -> [OK, revision, version, size]
    4  DELETE        key                            -> [OK, revision, deleted]
    5  DELETE_RANGE  start end                      -> [OK, revision, deleted]
    6  CAS_VALUE     key expected|nil value lease   -> [OK, revision, version]
    7  CAS_REVISION  key expected value lease       -> [OK, revision, version]
    8  PUT_VERSION   key value version              -> [OK, revision, version]
    9  TXN           compares then else             -> [OK, revision, succeeded, [answer, …]]
    10 LEASE_GRANT   ttl id                         -> [OK, revision, id, ttl]
    11 LEASE_REVOKE  id                             -> [OK, revision, deleted]
    12 LEASE_ALIVE   id                             -> [OK, revision, ttl]
    13 CONFIGURE     [limit|nil, …]                 -> [OK, revision]
    14 COMPACT       revision                       -> [OK, revision, compacted]
    15 END_SESSION                                  -> [OK, revision]

Reads::

    32 GET           key                            -> [OK, revision, value, create, mod, version,
                                                        lease]
    33 RANGE         start end limit flags          -> [OK, revision, more, total, [row, …]]
                                            row      = [key, value, create, mod, version, lease]
    34 LEASE_GET     id                             -> [OK, revision, ttl, remaining, keys]
    35 LEASES        limit                          -> [OK, revision, more, [[id, ttl, remaining,
                                                        keys], …]]
    36 LIMITS                                       -> [OK, revision, [limit, …]]
    37 INFO                                         -> [OK, revision, time, keys, bytes, sessions,
                                                        leases, compacted]

A *range* is from `start` to before `end`; `end` b"" is past the last key, nil is `start` alone.
RANGE returns at most `limit` rows (0: any), 10 000 rows and 1 MiB, but at least one; `more` says
that there are more, which begin after the last key (`after`). `total` counts all in the range.
All reads of a frame, and of a transaction, share these bounds: a GET that does not fit any more is
[TOO_LARGE, "answer"], a RANGE is shorter, and may be empty.

`lease` of a write is 0 for none, or -1 to keep the one that the key has. `ttl` and `remaining` are
milliseconds; id 0 lets the store choose one that was never used. CAS_VALUE with nil and
CAS_REVISION with 0 expect that there is no such key. PUT_VERSION is the labs': 0 makes a key.

In a transaction, then and else are lists of at most 128 of PUT, APPEND, DELETE, DELETE_RANGE, GET
and RANGE, as [op, argument, …]; no key may be written by two of them. A compare is
[key, target, operator, operand], with targets VALUE 0 (bytes, or nil for no such key), VERSION 1,
CREATE 2, MOD 3, LEASE 4 (integers, all 0 if there is no such key), operators = 0, != 1, < 2, > 3.
If one of the writes is refused none is done, and its answer is that of the transaction.

Answers otherwise::

    1 COMPARE_FAILED  revision mod version    not as expected; 0 0 if there is no such key
    2 NOT_FOUND       revision                no such key, or no such lease (any more)
    3 LATE                                    older than the last of its session
    4 SESSION_EXPIRED                         not carried out now; earlier, nobody knows
    5 TOO_LARGE       what                    key value request space answer
    6 TOO_MANY        what                    sessions leases lease range
    7 REFUSED         what                    lease: there is one of this id
    8 INVALID         what                    makes no sense

Body of an entry, little-endian; b"" is Raft's own and holds nothing::

    entry = version:u8 0:u8 group:u16 frames:u32 time:u64  (principal:u32 size:u32) * frames
            frame * frames

Worked example: in group 1 at time 5 principal 7 writes [9, [b"", 1, PUT, b"k", b"v", 0]]::

    01 00 01 00  01 00 00 00  05 00 00 00 00 00 00 00    07 00 00 00  0e 00 00 00
    92 09  96  c4 00  01  02  c4 01 6b  c4 01 76  00

and it is answered by [9, [OK, 1, 1]]: 92 09 93 00 01 01.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.record import Record

PUT = 2  # 1 would be equal to True
APPEND = 3
DELETE = 4
DELETE_RANGE = 5
CAS_VALUE = 6
CAS_REVISION = 7
PUT_VERSION = 8
TXN = 9
LEASE_GRANT = 10
LEASE_REVOKE = 11
LEASE_ALIVE = 12
CONFIGURE = 13
COMPACT = 14
END_SESSION = 15

GET = 32
RANGE = 33
LEASE_GET = 34
LEASES = 35
LIMITS = 36
INFO = 37

OK = 0
COMPARE_FAILED = 1
NOT_FOUND = 2
LATE = 3
SESSION_EXPIRED = 4
TOO_LARGE = 5
TOO_MANY = 6
REFUSED = 7
INVALID = 8

KEYS_ONLY, COUNT_ONLY, REVERSE = 1, 2, 4
"""Flags of RANGE. Values are b"" with KEYS_ONLY, and there are no rows with COUNT_ONLY."""
VALUE, VERSION, CREATE, MOD, LEASE = range(5)
EQUAL, UNEQUAL, LESS, GREATER = range(4)
KEEP_LEASE = -1

FRAME_MOST = 1024
"""Requests, or asks, in a frame."""
TXN_MOST = 128
"""Compares, and operations of a branch, in a transaction."""
ROWS_MAX = 10_000
READ_BYTES_MAX = 1 << 20
"""Of keys and values in the answer to a frame."""

SLOTS = 1 << 14
SESSION_BYTES = 16
INTEGER_MAX = (1 << 63) - 1
TIME_MAX = 1 << 62
"""Later than this is no time: deadlines must fit in 64 bits."""

ENTRY_VERSION = 1
_HEAD = struct.Struct("<BBHIQ")

Command = tuple[Any, ...]
"""(op, argument, …)"""


# --- entries -------------------------------------------------------------------------------------


def pack_entry(group: int, time: int, frames: Sequence[tuple[int, bytes]]) -> bytes:
    """An entry's body: write frames, each with the number of its principal."""
    sizes: list[int] = []
    for principal, frame in frames:
        sizes += (principal, len(frame))
    head = _HEAD.pack(ENTRY_VERSION, 0, group, len(frames), time)
    table = struct.pack(f"<{len(sizes)}I", *sizes)
    return b"".join([head, table, *[frame for _, frame in frames]])


class Entry(Record):
    """What a body holds. `principals[n]` sent `frames[n]`."""

    group: int
    time: int
    principals: tuple[int, ...]
    frames: list[bytes]


def unpack_entry(body: bytes) -> Entry | None:
    """None if it is none, which only a faulty program could have placed."""
    if len(body) < _HEAD.size:
        return None
    version, zero, group, frames, time = _HEAD.unpack_from(body)
    at = _HEAD.size + 8 * frames
    if version != ENTRY_VERSION or zero or time > TIME_MAX or at > len(body):
        return None
    table = struct.unpack_from(f"<{2 * frames}I", body, _HEAD.size)
    sizes = table[1::2]
    if at + sum(sizes) != len(body):
        return None
    found = []
    for size in sizes:
        found.append(body[at : at + size])
        at += size
    return Entry(group, time, table[::2], found)


# --- what clients write --------------------------------------------------------------------------


def new_session(birth: int, chance: bytes) -> bytes:
    """A session's name, from replicated time as a server tells it and 8 random bytes."""
    if len(chance) != 8:
        raise ValueError("a session has 8 random bytes")
    return birth.to_bytes(8, "big") + chance


def request(session: bytes, sequence: int, command: Command) -> Command:
    return (session, sequence, *command)


def pack_frame(number: int, *asked: Command) -> bytes:
    """Of requests (`request`), or of asks (commands as they are)."""
    packed: bytes = msgpack.packb((number, *asked))
    return packed


def unpack_answers(frame: bytes) -> tuple[int, list[tuple[Any, ...]]]:
    """(number, answers). ValueError for what no server says."""
    try:
        message = msgpack.unpackb(frame, use_list=False, max_ext_len=0)
        number, *answers = message
    except (ValueError, TypeError) as error:
        raise ValueError(f"no answers: {error}") from error
    if type(number) is not int or not all(type(one) is tuple and one for one in answers):
        raise ValueError("no answers")
    return number, answers


def put(key: bytes, value: bytes, lease: int = 0) -> Command:
    return PUT, key, value, lease


def append(key: bytes, value: bytes) -> Command:
    return APPEND, key, value


def delete(key: bytes) -> Command:
    return DELETE, key


def delete_range(start: bytes, end: bytes | None) -> Command:
    return DELETE_RANGE, start, end


def cas_value(key: bytes, expected: bytes | None, value: bytes, lease: int = 0) -> Command:
    return CAS_VALUE, key, expected, value, lease


def cas_revision(key: bytes, expected: int, value: bytes, lease: int = 0) -> Command:
    return CAS_REVISION, key, expected, value, lease


def put_version(key: bytes, value: bytes, version: int) -> Command:
    return PUT_VERSION, key, value, version


def compare(key: bytes, target: int, operator: int, operand: bytes | int | None) -> Command:
    return key, target, operator, operand


def txn(
    compares: Sequence[Command], then: Sequence[Command], otherwise: Sequence[Command] = ()
) -> Command:
    return TXN, tuple(compares), tuple(then), tuple(otherwise)


def lease_grant(ttl: int, lease: int = 0) -> Command:
    return LEASE_GRANT, ttl, lease


def lease_revoke(lease: int) -> Command:
    return LEASE_REVOKE, lease


def lease_alive(lease: int) -> Command:
    return LEASE_ALIVE, lease


def configure(limits: Sequence[int | None]) -> Command:
    """Limits in the order of `engine.kv.limits.Limits`; None leaves one as it is."""
    return CONFIGURE, tuple(limits)


def compact(revision: int) -> Command:
    return COMPACT, revision


def end_session() -> Command:
    return (END_SESSION,)


def get(key: bytes) -> Command:
    return GET, key


def key_range(start: bytes, end: bytes | None, limit: int = 0, flags: int = 0) -> Command:
    return RANGE, start, end, limit, flags


def lease_get(lease: int) -> Command:
    return LEASE_GET, lease


def leases(limit: int) -> Command:
    return LEASES, limit


def get_limits() -> Command:
    return (LIMITS,)


def get_info() -> Command:
    return (INFO,)


# --- keys ----------------------------------------------------------------------------------------


def after(key: bytes) -> bytes:
    """The least key that is greater: where a range goes on."""
    return key + b"\0"


def prefix_end(prefix: bytes) -> bytes:
    """The `end` of the range of all keys that begin with this; b"" if none is greater."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b""


def slot_of(key: bytes) -> int:
    """The slot of a key, as in Redis Cluster: if it has a {tag} that is not empty, the tag's."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS
