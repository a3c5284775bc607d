"""One form for each value, wherever it comes from: a file, a database, the hub, a folder's name, or a request.

Values take two steps. First every source gives text: csv and tsv hold nothing else, and typed values (JSON, Parquet,
Arrow, SQL) are spelled, one at a time (`spelling.spell_value`) or a column at a time (`columns.spell_column`). Then the
role of the column reads the text:

    label, tag, category, group     words.canonical_word    3.0 is 3, True is true, NFD is NFC, a time is in UTC
    yes or no                       words.canonical_word    compared with the column's words
    number                          numbers.parse_number    a float64
    date, time of a split           moments.parse_moment    microseconds since 1970 in UTC
    text                            words.canonical_text    Unicode NFC; nothing else changes

Each function looks at one value alone, so no value changes how another one is read. The functions on whole columns in
`columns` give the same results, faster.
"""
