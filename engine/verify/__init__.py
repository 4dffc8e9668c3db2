"""Judging what clients saw. `history` is what they note down, `linearizable` judges it by a model.

Nothing here knows a service: a model says what a single copy, used by one client at a time, would
have answered.
"""
