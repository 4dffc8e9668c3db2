"""Planted bugs: the classic mistakes of consensus and of its log, each as a small patch.

The catalogue is that of `docs/raft.md`. They are hunted by what the judge sees from outside; the
members' own `check` is off.
"""

from __future__ import annotations

from typing import Any

from engine.raft.candidate import Candidate
from engine.raft.follower import Follower
from engine.raft.leader import Leader
from engine.raft.machine import Raft
from engine.raft.membership import LEAVING, Membership
from engine.raft.messages import AppendEntries, AppendReply, VoteReply, VoteRequest
from engine.raft.progress import Progress
from engine.raft.reads import Reads
from engine.raft.server import RaftServer
from engine.raft.snapshots import Snapshots
from engine.raft.votes import Votes
from engine.sim.planting import Patch
from engine.storage.recovery import Recovery

# --- votes and terms -----------------------------------------------------------------------------


def _vote_not_persisted(original: Any) -> Any:
    """The disk learns the term, and not for whom the vote was."""

    def take(self: Raft) -> Any:
        writes = original(self)
        return tuple([w._replace(record=_without_vote(w.record)) for w in writes])

    return take


def _without_vote(record: Any) -> Any:
    return record._replace(vote=0) if hasattr(record, "vote") else record


def _term_not_persisted(original: Any) -> Any:
    """A term is written when a vote is given in it, and not when it is heard of."""

    def set_state(self: Raft, term: int, vote: int) -> None:
        dirty = self._dirty
        original(self, term, vote)
        if vote == 0:
            self._dirty = dirty

    return set_state


def _persisted_always(_: Any) -> Any:
    """Replies do not wait for the term's fsync."""
    return lambda self: True


def _always_up_to_date(_: Any) -> Any:
    """Any candidate will do."""
    return lambda self, ask: True


def _longer_is_better(_: Any) -> Any:
    """Logs are compared by their length first."""

    def up_to_date(self: Votes, ask: VoteRequest) -> bool:
        log = self.raft.log
        return (ask.last_index, ask.last_term) >= (log.last, log.last_term)

    return up_to_date


def _ignores_later_terms(original: Any) -> Any:
    """Candidates and leaders do not look at the term of what they are answered."""

    def receive(self: Raft, link: Any, message: Any) -> None:
        refused = type(message) is VoteReply and not message.granted
        if (type(self.role) is Candidate and refused) or type(message) is AppendReply:
            message = message._replace(term=min(message.term, self.term))
        original(self, link, message)

    return receive


def _hears_the_past(original: Any) -> Any:
    """Whoever sends entries is the leader, whatever its term."""

    def answer(self: Raft, link: Any, message: Any) -> None:
        if type(message) is AppendEntries and type(self.role) is Follower:
            self.role._hear(message.sender)
        original(self, link, message)

    return answer


def _vote_again(original: Any) -> Any:
    """A vote that was given is forgotten with the timer that it resets."""

    def grant(self: Votes, candidate: int) -> None:
        original(self, candidate)
        self.raft.vote = 0

    return grant


# --- entries -------------------------------------------------------------------------------------


def _commit_old_terms(_: Any) -> Any:
    """Entries of earlier terms are committed by counting (figure 8)."""

    def advance(self: Leader) -> None:
        self.raft.commit_to(self.raft.members.reached(self.matched))

    return advance


def _truncates_always(_: Any) -> Any:
    """What comes replaces whatever is there, the same or not."""
    return lambda self, previous, entries: 0


def _no_term_check(_: Any) -> Any:
    """An entry at the right index is the right one."""
    return lambda self, ask: ask.previous <= self.raft.log.last


def _commits_unmatched(_: Any) -> Any:
    """The commit index goes as far as the log."""
    return lambda self, ask, verified: min(ask.commit, self.raft.log.last)


def _counts_unsynced(original: Any) -> Any:
    """The leader counts itself when it has written."""

    def match(self: Leader, member: int) -> int:
        return self.raft.log.last if member == self.raft.me else int(original(self, member))

    return match


def _next_underflows(_: Any) -> Any:
    """Backing up knows no lower bound."""

    def probe(self: Progress, first: int) -> None:
        self.state, self.next, self.paused = "probe", first - 1, False
        self.in_flight.clear()

    return probe


def _applies_early(original: Any) -> Any:
    """A leader applies what it has written."""

    def applicable(self: Raft) -> int:
        return self.stable if type(self.role) is Leader else int(original(self))

    return applicable


def _acknowledges_early(original: Any) -> Any:
    """A follower acknowledges before its fsync."""

    def say_after(self: Raft, link: Any, message: Any) -> None:
        (self.say_now if type(message) is AppendReply else original.__get__(self))(link, message)

    return say_after


def _answers_the_last(original: Any) -> Any:
    """Every acknowledgement is taken for that of the last message, however old it is."""

    def accepted(self: Leader, progress: Progress, reply: AppendReply) -> None:
        original(self, progress, reply._replace(match=progress.next - 1))

    return accepted


# --- quorums and members -------------------------------------------------------------------------


def _half_is_enough(_: Any) -> Any:
    def reached(self: Membership, value: Any) -> int:
        halves = [half for half in (self.voters, self.outgoing) if half]
        lows = [sorted(map(value, half), reverse=True)[(len(half) - 1) // 2] for half in halves]
        return int(min(lows))

    return reached


def _half_elects(_: Any) -> Any:
    def enough(self: Membership, agreeing: Any) -> bool:
        halves = [half for half in (self.voters, self.outgoing) if half]
        return bool(halves) and all(2 * sum(map(agreeing, half)) >= len(half) for half in halves)

    return enough


def _old_members_decide(original: Any) -> Any:
    """The leader counts by the configuration before the last."""

    def reached(self: Membership, value: Any) -> int:
        now = self._history.pop() if len(self._history) > 1 else None
        self._adopt()
        found = int(original(self, value))
        if now is not None:
            self._history.append(now)
            self._adopt()
        return found

    return reached


def _learners_count(original: Any) -> Any:
    def adopt(self: Membership) -> None:
        original(self)
        self.voters = tuple([m.id for m in self.now.members if m.role != LEAVING])

    return adopt


def _counts_itself(original: Any) -> Any:
    """Whoever leads counts, also when it is no member any more."""

    def adopt(self: Membership) -> None:
        original(self)
        if self.me not in self.voters and self.voters:
            self.voters = (*self.voters, self.me)

    return adopt


def _changes_at_once(_: Any) -> Any:
    """A new leader changes members before it has committed anything."""

    def why_not(self: Leader) -> str:
        members = self.raft.members
        return "" if members.index <= self.raft.commit and not members.now.joint else "busy"

    return why_not


# --- snapshots -----------------------------------------------------------------------------------


def _off_by_one(original: Any) -> Any:
    """A snapshot says that it covers one entry less than it does."""

    def covers(self: RaftServer) -> Any:
        last, _, config = original(self)
        return last - 1, max(0, self.machine.log.term(last - 1)), config

    return covers


def _without_members(original: Any) -> Any:
    def covers(self: RaftServer) -> Any:
        last, term, _ = original(self)
        return last, term, b""

    return covers


def _log_not_truncated(original: Any) -> Any:
    """What was in the log stays behind an installed snapshot that it has nothing to do with."""

    def restart(self: Raft, index: int, term: int, config: bytes) -> None:
        terms, sizes = list(self.log.terms), list(self.log.sizes)
        original(self, index, term, config)
        self.log.terms, self.log.sizes = terms, sizes
        self.log.last = self.log.base + len(terms)

    return restart


def _suffix_discarded(_: Any) -> Any:
    """An installed snapshot takes the place of the whole log."""

    def begin(self: Snapshots, kept: Any) -> None:
        self.raft.restart_log(kept.last, kept.term, kept.config)
        self.raft.load(kept.last)

    return begin


def _never_stale(_: Any) -> Any:
    """A snapshot is installed, whatever has been committed since."""
    return lambda self, ask: False


def _all_is_torn(_: Any) -> Any:
    """Whatever does not verify is the torn end of the log, in its middle as well."""
    return lambda self, live: None


def _piece_waits(_: Any) -> Any:
    """A piece that was lost is said again when nothing else was said for a heartbeat's time."""

    return lambda self, heartbeat: self.sent + heartbeat


# --- reads ---------------------------------------------------------------------------------------


def _reads_at_once(_: Any) -> Any:
    """Whoever believes to lead answers."""

    def begin(self: Reads) -> None:
        for context in self._waiting:
            self._leader.raft.confirm(context, self._leader.raft.commit)
        self._waiting = []

    return begin


def _old_round(original: Any) -> Any:
    """Any answer that came before the read confirms it."""

    def begin(self: Reads) -> None:
        self.round -= bool(self._waiting and not self._asked and self.round)
        original(self)

    return begin


BUGS: dict[str, tuple[Patch, ...]] = {
    "commit_old_term_by_counting": (Patch(Leader, "_advance", _commit_old_terms),),
    "vote_not_persisted": (Patch(Raft, "_take_writes", _vote_not_persisted),),
    "term_not_persisted": (Patch(Raft, "set_state", _term_not_persisted),),
    "term_persisted_after_reply": (Patch(Raft, "persisted", _persisted_always),),
    "no_up_to_date_check": (Patch(Votes, "up_to_date", _always_up_to_date),),
    "length_before_term": (Patch(Votes, "up_to_date", _longer_is_better),),
    "truncates_matching_tail": (Patch(Follower, "_known", _truncates_always),),
    "no_previous_term_check": (Patch(Follower, "_agrees", _no_term_check),),
    "commit_past_matched": (Patch(Follower, "_committed", _commits_unmatched),),
    "half_is_a_majority": (
        Patch(Membership, "reached", _half_is_enough),
        Patch(Membership, "enough", _half_elects),
    ),
    "majority_of_old_members": (Patch(Membership, "reached", _old_members_decide),),
    "later_term_in_reply_ignored": (Patch(Raft, "_receive", _ignores_later_terms),),
    "leader_counts_itself_unsynced": (Patch(Leader, "matched", _counts_unsynced),),
    "heartbeat_of_the_past": (Patch(Raft, "_answer_the_past", _hears_the_past),),
    "vote_forgotten_when_given": (Patch(Votes, "_grant", _vote_again),),
    "next_index_underflows": (Patch(Progress, "probe", _next_underflows),),
    "piece_waits_for_silence": (Patch(Progress, "piece_at", _piece_waits),),
    "snapshot_off_by_one": (Patch(RaftServer, "_covers", _off_by_one),),
    "snapshot_without_members": (Patch(RaftServer, "_covers", _without_members),),
    "log_kept_after_install": (Patch(Raft, "restart_log", _log_not_truncated),),
    "suffix_discarded_at_install": (Patch(Snapshots, "_begin_behind", _suffix_discarded),),
    "read_without_quorum": (Patch(Reads, "begin", _reads_at_once),),
    "read_confirmed_by_the_past": (Patch(Reads, "begin", _old_round),),
    "change_before_own_term": (Patch(Leader, "_why_not_change", _changes_at_once),),
    "removed_leader_counts_itself": (Patch(Membership, "_adopt", _counts_itself),),
    "applied_before_commit": (Patch(Raft, "_applicable", _applies_early),),
    "acknowledged_before_fsync": (Patch(Raft, "say_after", _acknowledges_early),),
    "stale_reply_moves_match": (Patch(Leader, "_accepted", _answers_the_last),),
    "learner_counted": (Patch(Membership, "_adopt", _learners_count),),
    "stale_snapshot_accepted": (Patch(Snapshots, "_stale", _never_stale),),
    "damage_taken_for_torn": (Patch(Recovery, "_judge", _all_is_torn),),
}
