"""Weather: how often what happens to a message, and that equal chance gives equal fates."""

from __future__ import annotations

import random

import pytest
from support import dose

from engine.sim.timeline import MILLISECOND
from engine.sim.weather import (
    CALM,
    LABRPC_REORDERING,
    LABRPC_UNRELIABLE,
    LABS_2012,
    Fates,
    Weather,
)

MESSAGES = dose(20_000, 1_000_000)
PRESETS = {
    "unreliable": LABRPC_UNRELIABLE,
    "reordering": LABRPC_REORDERING,
    "labs-2012": LABS_2012,
    "all": Weather(0.1, 0.2, 0.3, 0.4, (5, 9), (1, 3)).reordering(),
}


def requests(weather: Weather, seed: int = 1) -> list[Fates]:
    rng = random.Random(seed)
    return [weather.request_fates(rng) for _ in range(MESSAGES)]


def replies(weather: Weather, seed: int = 1) -> list[Fates]:
    rng = random.Random(seed)
    return [weather.reply_fates(rng) for _ in range(MESSAGES)]


def share(fates: list[Fates], copies: int) -> float:
    return sum(len(fate) == copies for fate in fates) / len(fates)


def test_calm_draws_nothing() -> None:
    rng = random.Random(1)
    before = rng.getstate()
    assert CALM.request_fates(rng) == CALM.reply_fates(rng) == (0,)
    assert rng.getstate() == before


@pytest.mark.parametrize("weather", PRESETS.values(), ids=PRESETS)
def test_equal_seeds_give_equal_fates(weather: Weather) -> None:
    assert requests(weather) == requests(weather)
    assert replies(weather) == replies(weather)
    assert requests(weather) != requests(weather, 2)


def test_unreliable() -> None:
    assert share(requests(LABRPC_UNRELIABLE), 0) == pytest.approx(0.1, abs=0.01)
    assert share(replies(LABRPC_UNRELIABLE), 0) == pytest.approx(0.1, abs=0.01)
    delays = [fate[0] for fate in requests(LABRPC_UNRELIABLE) if fate]
    assert min(delays) >= 0
    assert max(delays) <= 26 * MILLISECOND
    assert sum(delays) / len(delays) == pytest.approx(13 * MILLISECOND, rel=0.03)
    assert {delay for fate in replies(LABRPC_UNRELIABLE) for delay in fate} == {0}


def test_long_reordering() -> None:
    assert requests(LABRPC_REORDERING) == requests(LABRPC_UNRELIABLE)
    delays = [fate[0] for fate in replies(LABRPC_REORDERING) if fate]
    assert len(delays) / MESSAGES == pytest.approx(0.9, abs=0.01)
    held = [delay for delay in delays if delay]
    assert len(held) / len(delays) == pytest.approx(2 / 3, abs=0.01)
    assert min(held) >= 200 * MILLISECOND
    assert max(held) <= 2199 * MILLISECOND
    # The mean of rand(0..rand(0..1999)) is a quarter of 1999.
    assert sum(held) / len(held) == pytest.approx((200 + 1999 / 4) * MILLISECOND, rel=0.03)


def test_labs_2012_loses_18_percent_of_all_replies() -> None:
    rng = random.Random(1)
    done = [LABS_2012.reply_fates(rng) for _ in range(MESSAGES) if LABS_2012.request_fates(rng)]
    assert len(done) / MESSAGES == pytest.approx(0.9, abs=0.01)
    assert sum(not fate for fate in done) / MESSAGES == pytest.approx(0.18, abs=0.01)


def test_duplicates_are_of_what_is_not_lost_and_each_has_its_own_delay() -> None:
    weather = PRESETS["all"]
    assert share(requests(weather), 2) == pytest.approx(0.9 * 0.3, abs=0.02)
    assert share(replies(weather), 2) == pytest.approx(0.8 * 0.4, abs=0.02)
    pairs = [fate for fate in requests(weather) if len(fate) == 2]
    assert {delay for pair in pairs for delay in pair} == {5, 6, 7, 8, 9}
    assert any(first != second for first, second in pairs)


def test_reordering_goes_with_any_weather() -> None:
    weather = LABS_2012.reordering()
    assert weather.request_loss == 0.1
    assert weather.reply_loss == 0.2
    assert any(max(fate, default=0) > 0 for fate in replies(weather))
