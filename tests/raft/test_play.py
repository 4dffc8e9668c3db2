"""Random scripts: whatever happens, the runner's judge has no objection, and in the end all agree.

A failure shows the script, which can be shortened, told as a story, and put among the scenarios.
"""

from __future__ import annotations

import random

import pytest
from raft.cluster import Cluster
from support import dose

from engine.raft.leader import Leader
from engine.raft.membership import JOINING, LEAVING

STEPS = 150
MEMBERS_MAX = 7
SECONDS = 12
"""Of quiet, in which a group must agree: elections whose patience was doubled are long."""


class Play:
    """Draws commands and carries them out."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cluster = Cluster()
        self.script: list[str] = []
        self.damaged = False
        self.named = 0
        sizes = (
            f"entries_max={self.rng.choice((1, 2, 1024))} chunk_bytes={self.rng.choice((20, 99))}"
        )
        self.do(f"set {sizes} window_max={self.rng.choice((1, 4))} promotion_lag={seed % 2 * 64}")
        self.do(f"cluster {self.rng.choice((1, 2, 3, 3, 3, 4, 5))}")

    def do(self, line: str) -> None:
        self.script.append(line)
        self.cluster.run(line)

    def leaders(self) -> list[int]:
        up = self.cluster.up()
        return [m.number for m in up if isinstance(self.cluster.raft(m.number).role, Leader)]

    def step(self) -> None:
        rng, members = self.rng, list(self.cluster.members)
        number = rng.choice(members)
        weights = {
            self.letters: 40, self.time: 14, self.proposal: 10, self.disk: 12, self.power: 9,
            self.partition: 4, self.membership: 3, self.election: 4,
        }  # fmt: skip
        rng.choices(list(weights), list(weights.values()))[0](number)

    def letters(self, number: int) -> None:
        waiting, said = self.cluster.waiting, len(self.cluster.letters)
        if waiting and self.rng.random() < 0.85:
            self.do(f"deliver {self.rng.choice(waiting[:8])}")
        elif waiting and self.rng.random() < 0.4:
            self.do(f"lose {self.rng.choice(waiting)}")
        elif said:
            self.do(f"again {self.rng.randint(max(1, said - 40), said)}")

    def time(self, number: int) -> None:
        milliseconds = self.rng.choice((5, 20, 50, 150, 310))
        what = [f"tick {milliseconds} {number}", "tick 40", "live 20"]
        self.do(self.rng.choices(what, (7, 4, 3))[0])

    def proposal(self, number: int) -> None:
        for leader in self.leaders():
            self.named += 1
            words = [f"c{self.named}.{n}" for n in range(self.rng.randint(1, 3))]
            self.do(f"propose {leader} {' '.join(words)}")
        if self.cluster.up([str(number)]):
            self.do(f"read {number} r{self.named}")

    def disk(self, number: int) -> None:
        if not self.cluster.up([str(number)]):
            return
        what = ["slow", "durable", "fast", "snapshot", "room"]
        verb = self.rng.choices(what, (4, 4, 3, 4, 1))[0]
        if verb == "durable":
            self.do(f"durable {number} 1")
        elif verb == "room":
            self.do(f"room {number} {self.rng.choice(('no', 'yes'))}")
        elif verb != "snapshot" or self.cluster.members[number].applied:
            self.do(f"{verb} {number}")

    def power(self, number: int) -> None:
        if self.cluster.up([str(number)]):
            self.do(f"crash {number}" if self.rng.random() < 0.5 else f"link {number} 1 down")
            return
        # More damage than that can take all copies of an entry, and then it is gone.
        if not self.damaged and len(self.cluster.members) > 2 and self.rng.random() < 0.2:
            self.damaged = True
            self.do(f"damage {number} {self.rng.randint(1, 9)}")
        self.do(f"restart {number}")

    def partition(self, number: int) -> None:
        other = self.rng.choice(list(self.cluster.members))
        self.do(self.rng.choice((f"cut {number}>{other}", "heal")))

    def election(self, number: int) -> None:
        """Somebody's patience ends, and most of the others have none left either."""
        up = [str(member.number) for member in self.cluster.up()]
        if str(number) not in up:
            return
        if self.leaders() and self.rng.random() < 0.7:
            self.do(f"isolate {self.rng.choice(self.leaders())}")
        self.do(f"forget {' '.join(up)}")
        self.do(f"tick 310 {number}")
        for _ in range(self.rng.randint(4, 16)):
            if self.cluster.waiting:
                self.do(f"deliver {self.rng.choice(self.cluster.waiting[-6:])}")
        if self.rng.random() < 0.5:
            self.do("heal")

    def membership(self, number: int) -> None:
        if not self.cluster.up([str(number)]):
            return
        if self.rng.random() < 0.4:
            self.do(f"transfer {number} {self.rng.choice([0, *self.cluster.members])}")
            return
        if self.rng.random() < 0.4 and len(self.cluster.members) < MEMBERS_MAX:
            self.do(f"join {len(self.cluster.members) + 1}")
        some = [n for n in self.cluster.members if self.rng.random() < 0.75] or [number]
        marked = [f"{n}{'~' if self.rng.random() < 0.15 else ''}" for n in some]
        self.do(f"change {number} {' '.join(marked)}")

    def end(self) -> None:
        """All is well again."""
        self.do("heal")
        for number, member in list(self.cluster.members.items()):
            if member.raft is None:
                self.do(f"restart {number}")
            self.do(f"fast {number}")
            self.do(f"room {number} yes")

    def agreed(self) -> bool:
        """All members have applied all that the leader has, and no change is under way."""
        if not self.leaders():
            return False
        leader = max(self.leaders(), key=lambda number: self.cluster.raft(number).term)
        raft, first = self.cluster.raft(leader), self.cluster.members[leader]
        now = raft.members.now
        if {member.role for member in now.members} & {JOINING, LEAVING} or now.joint:
            return False
        states = [self.cluster.members[member.id] for member in now.members]
        same = all((m.applied, m.state) == (first.applied, first.state) for m in states)
        return same and raft.commit == raft.log.last

    def whole(self) -> bool:
        """Whoever has lost entries may be needed to get them back, and then nothing goes on."""
        return all(self.cluster.raft(n).lost is None for n in self.cluster.members)


@pytest.mark.parametrize("seed", range(dose(80, 3000)))
def test_whatever_happens_nothing_is_wrong_and_all_agree_in_the_end(seed: int) -> None:
    play = Play(seed)
    try:
        for _ in range(STEPS):
            play.step()
        play.end()
        for _ in range(SECONDS):
            play.do("live 1000")
            if play.agreed():
                return
        assert not play.whole(), "\n".join(play.cluster.do_show() + play.cluster.do_log())
    except Exception:
        print("\n".join(play.script))
        raise
