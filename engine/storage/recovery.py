"""Read a log back: what counts, what was torn, and what was damaged.

Reading stops at the first place where no record verifies that follows the one before. It is
*damage* only if a record that verifies, after that place and in a live segment, says that
something beyond it was durable. Then the intact beginning counts, and each group that had
something behind it is told the greatest end that any surviving record tells: its log is *lost*
until it is that far again. Otherwise it was a batch of which nothing had been promised, torn or
never written: it is dropped. The rule is that of Alagappan et al., "Protocol-Aware Recovery for
Consensus-Based Storage" (FAST 2018), section 3.3, with a watermark in the place of its identifiers.

The oldest segments may be missing or unreadable, since they are removed once nothing needs them.
Whether something did is seen from the indexes: a gap between a group's base and its entries.
"""

from __future__ import annotations

from array import array

from engine.record import Record
from engine.storage.entries import Base, Position
from engine.storage.groups import Columns as Places
from engine.storage.groups import Group
from engine.storage.records import (
    ANEW,
    BASE,
    ENTRY,
    HEAD_BYTES,
    HEADER_BYTES,
    STATE,
    STATE_BODY,
    Columns,
    Header,
    name_of,
    number_of,
    offset_of,
    place,
    record_bytes,
    scan,
    search,
)
from engine.storage.segments import Segment


class Finding(Record):
    """Something that recovery met: `why` at byte `offset` of a segment; `damage`, or only torn."""

    segment: str
    offset: int
    why: str
    damage: bool


class Live(Record):
    """A segment with live records, which lie below the position `limit`, if it has one."""

    segment: Segment
    header: Header
    limit: int | None

    def read(self) -> bytes:
        """Its live part."""
        size = self.segment.size
        if self.limit is not None and number_of(self.limit) == self.segment.number:
            size = min(size, offset_of(self.limit))
        return self.segment.file.read(0, size)


class Recovery:
    """What was found: the groups, where the log ends, what is durable."""

    def __init__(self, segments: list[Segment]) -> None:
        """OSError."""
        self.groups: dict[int, Group] = {}
        self.findings: list[Finding] = []
        self.end = self.chain = 0
        """Where what counts ends, and the sum of the last record."""
        self.durable = 0
        """All of what counts before this position is known to be durable."""
        self._recent: list[tuple[int, Columns]] = []
        self._unsure: set[int] = set()
        """Groups with a base and entries of which nothing has said yet that they follow it."""
        self._begin = (0, 0)
        self.segments = segments
        live = live_segments(segments)
        self._replay_all(live)
        self._judge(live)
        for group in self.groups.values():
            self._fill_hole(group)
            if group.number in self._unsure:  # the batch with the base is damaged behind it
                end = group.end
                group.drop()
                group.told_lost(end)

    def group(self, number: int) -> Group:
        if number not in self.groups:
            self.groups[number] = Group(number)
        return self.groups[number]

    def durable_end(self) -> tuple[int, int]:
        """The last place between records that is known to be durable: (position, sum before)."""
        if self.durable >= self.end:
            return self.end, self.chain
        best = self._begin
        for number, columns in self._recent:
            for offset, size, total in zip(
                columns.offsets, columns.sizes, columns.sums, strict=True
            ):
                position = place(number, offset + record_bytes(size))
                if position > self.durable:
                    return best
                best = position, total
        return best

    # --- what counts -----------------------------------------------------------------------------

    def _replay_all(self, live: list[Live]) -> None:
        for at, (segment, header, limit) in enumerate(live):
            if at == 0:
                self.end, self.chain = self._begin = header.continues, header.chain
            if (header.continues, header.chain) != (self.end, self.chain):
                return
            data = live[at].read()
            columns = scan(data, HEADER_BYTES, header, self.chain)
            self._replay(segment.number, columns, data)
            self.end, self.chain = place(segment.number, columns.end), columns.previous
            self._recent.append((segment.number, columns))
            if limit is not None and number_of(limit) == segment.number and self.end != limit:
                return

    def _replay(self, number: int, columns: Columns, data: bytes) -> None:
        if not columns.runs:
            return
        self.durable = max(self.durable, max(columns.watermarks))
        while self._recent and self._recent[0][0] < number_of(self.durable):
            self._recent.pop(0)
        configs = iter([*columns.configs, -1])
        config = next(configs)
        for begin, end in zip(columns.runs, [*columns.runs[1:], len(columns.sizes)], strict=True):
            group = self.group(columns.groups[begin])
            index, term = columns.indexes[begin], columns.terms[begin]
            kind, offset = columns.kinds[2 * begin], columns.offsets[begin] + HEAD_BYTES
            if kind == ENTRY:
                found = []
                while begin <= config < end:
                    at = columns.offsets[config] + HEAD_BYTES
                    body = data[at : at + columns.sizes[config]]
                    found.append((columns.indexes[config], body))
                    config = next(configs)
                begin += max(0, group.base.last + 1 - index)  # a base covers these
                if begin < end:
                    group.replace(
                        columns.indexes[begin], _places(number, columns, begin, end), found
                    )
            elif kind == STATE:
                vote, last = STATE_BODY.unpack_from(data, offset)
                group.told_state(term, vote, Position(last, index))
                self._unsure.discard(group.number)
            elif kind == BASE:
                body = data[offset : offset + columns.sizes[begin]]
                base = Base(group.number, index, term, body)
                if columns.kinds[2 * begin + 1] == ANEW:
                    group.restart(base, place(number, columns.offsets[begin]))
                else:
                    if group.hole and group.behind == (0, base.last):
                        self._unsure.add(group.number)
                    group.rebase(base)
            else:
                group.told_lost(Position(term, index))

    def _fill_hole(self, group: Group) -> None:
        """A log that does not begin at its base is a log of which only the base is left."""
        if group.hole:
            end = group.end
            why = f"entries {group.base.last + 1} to {group.behind.last} of group {group.number}"
            self.findings.append(Finding(name_of(number_of(self.end)), 0, f"{why} are gone", True))
            group.told_lost(end)
            group.drop()

    # --- what does not ---------------------------------------------------------------------------

    def _judge(self, live: list[Live]) -> None:
        """Whether what lies behind the end was durable: damage, or only torn."""
        proof = 0
        behind: list[tuple[Columns, bytes]] = []
        for one in live:
            if one.segment.number < number_of(self.end):
                continue
            begin = HEADER_BYTES
            if one.segment.number == number_of(self.end):
                begin = offset_of(self.end)
            data = one.read()
            columns = search(data, begin, one.header)
            behind.append((columns, data))
            proof = max([proof, *columns.watermarks])
        damage = proof > self.end
        self._explain(behind, proof if damage else 0)
        if damage:
            self.durable = self.end
            for columns, data in behind:
                self._survey(columns, data)

    def _explain(self, behind: list[tuple[Columns, bytes]], proof: int) -> None:
        segment, offset = name_of(number_of(self.end)), offset_of(self.end)
        if proof:
            why = f"no whole record, but {name_of(number_of(proof))} was durable to byte "
            self.findings.append(Finding(segment, offset, f"{why}{offset_of(proof)}", True))
            return
        # What a recycled segment holds from its earlier life is no finding, so bytes do not count.
        whole = sum(len(columns.sizes) for columns, _ in behind)
        if whole:
            why = f"{whole} whole records follow in a batch that was torn, and never durable"
            self.findings.append(Finding(segment, offset, why, False))

    def _survey(self, columns: Columns, data: bytes) -> None:
        """What surviving records behind the damage say about where logs ended, and about votes."""
        for at, number in enumerate(columns.groups):
            group = self.group(number)
            kind, index, term = columns.kinds[2 * at], columns.indexes[at], columns.terms[at]
            if kind == STATE:
                vote, last = STATE_BODY.unpack_from(data, columns.offsets[at] + HEAD_BYTES)
                if term > group.term or (term == group.term and vote):
                    group.term, group.vote = term, vote
                term = last
            elif kind == BASE and index == group.base.last:
                begin = columns.offsets[at] + HEAD_BYTES
                config = data[begin : begin + columns.sizes[at]]
                group.base = Base(number, index, term, config)
            group.told_lost(Position(term, index))


def live_segments(segments: list[Segment]) -> list[Live]:
    """Those that have live records and whose header verifies, by number."""
    live: list[Live] = []
    limit: int | None = None
    for segment in reversed(segments):
        header = segment.header
        if header is None or (limit is not None and segment.start >= limit):
            continue
        live.append(Live(segment, header, limit))
        limit = header.continues if limit is None else min(limit, header.continues)
    return live[::-1]


def _places(number: int, columns: Columns, begin: int, end: int) -> Places:
    base = place(number, 0)
    positions = array("Q", [base + offset for offset in columns.offsets[begin:end]])
    return Places(positions, columns.sizes[begin:end], columns.terms[begin:end])
