"""The built-in jobs by name. None is imported before somebody asks for it by name."""

BUILT_IN = {
    "grep": "engine.mapreduce.apps.grep:Grep",
    "index": "engine.mapreduce.apps.index:Index",
    "wordcount": "engine.mapreduce.apps.wordcount:WordCount",
}

SUMMARIES = {
    "grep": "lines that match a regular expression, by document: --set pattern=REGEX",
    "index": "inverted index: each word with the number and the names of its documents",
    "wordcount": "how often each word occurs; --set fold_case=yes to ignore case",
}
"""One line on each, for listings."""
