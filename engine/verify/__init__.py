"""Judging what clients saw: histories, the linearizability checker, and its picture.

Nothing here knows a service: a model says what a single copy, used by one client at a time, would
have answered. What there is for others:

* `history`: `Operation`, and `History`, in which clients note down what they do;
* `files`: `read` and `lines`, for histories as JSON lines;
* `models`: `Register`, `Append`, `Versioned`, `Lock`, and `MODELS` by name; `sets`: `Sets`, of keys
  that are changed together;
* `linearizable`: `check` (a `Judged` for each key, within `Limits`), `overall`, and the short
  `unlinearizable`, which raises `Undecided`; `Model` is what a service's own model must be;
* `picture`: `page`, an HTML page of what went wrong.
"""
