"""The store against its oracle: answers, everything it holds, reads, watches and snapshots."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kv.plays import play, small
from support import dose

from engine.kv.machine import Machine


@settings(max_examples=dose(40, 1000), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_a_short_play(rng: random.Random, entries: int) -> None:
    with small():
        play(Machine(), rng, entries)


@pytest.mark.parametrize("seed", range(dose(60, 3000)))
def test_a_play(seed: int) -> None:
    with small():
        play(Machine(), random.Random(seed), 60)


@pytest.mark.parametrize("seed", range(1000, 1000 + dose(20, 1000)))
def test_a_play_at_the_true_sizes(seed: int) -> None:
    play(Machine(), random.Random(seed), 60)
