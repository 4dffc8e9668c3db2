"""Consensus: one sequence of decided entries, kept by a group of members that may fail.

This is Raft (Ongaro and Ousterhout, "In search of an understandable consensus algorithm", 2014, the
paper; Ongaro's thesis, 2014). What follows is the story; each module tells its part.

**A log, and who may add to it.** Each member keeps a log of entries. Time is divided into *terms*,
numbered upwards; in each at most one member *leads*. Only the leader adds entries, and it only
appends. An entry is known by its index and its term: two logs that have the same entry have the
same log up to it, because whoever takes an entry must have the one before (`follower`). When enough
voters have an entry on their disks it is *decided*, and never lost (`leader`).

**Enough** is a majority. Any two majorities have a member in common, and everything rests on that
one (`membership`): whoever is elected has asked somebody who knows what was decided, and nobody
votes for a log shorter than his own (`votes`). Members come and go one at a time, or through a
joint configuration in which both majorities count, so that there are never two that do not meet.

**Elections.** A *follower* that hears nothing for a while asks whether it would be elected
(`candidate`: the pre-vote), and if so it raises the term, votes for itself and asks again in
earnest. A vote is given once a term, and is on the disk before it is said. Timeouts are random, so
that mostly one asks before the others; after a failed campaign they double, because a vote takes
two fsyncs and a disk may be slow. Whoever hears a leader ignores candidates: someone who was cut
off and returns must not depose it. And a leader that does not hear enough of the others stops
leading, so that nobody waits for it.

**A new leader** does not know what is decided. It appends an entry of its own term, of which
nothing but its place matters; when that one is decided, so is all before it. Counting earlier
entries directly would be wrong: figure 8 of the paper shows how one that is on a majority can still
be replaced. Until then it neither answers reads nor changes members.

**Replication** (`progress`). The leader probes where a follower's log parts from its own, backing
up a whole term at a time, and then streams, one message in flight where the way is short and more
where it is long. A follower answers when the entries are on its disk; a sign of life it gives at
once, for a slow disk is not a dead member.

**Reads** (`reads`) are answered as of the commit index once a round of messages, begun after they
came, has shown that nobody else leads.

**Snapshots** (`snapshots`) take the place of the beginning of a log, here when the state machine
has written one, at a follower that is too far behind when its leader sends one.

**What is not on the disk was not said.** A machine names what must be written and what may only be
said after that; the turn (`engine.contract.Server`) holds it back. A log that was damaged on the
disk knows how far it once went (`engine.storage`): its member votes again when it is that far
again.

`machine` holds all this together, pure: events in, and out what must now happen, without a clock or
a socket; `server` gives messages their bytes and feeds the state machine; `trial` attacks a group
in the simulator, with a judge (`trial_judge`) who believes nobody; `trial_explorer` walks through
every small history there is.
"""
