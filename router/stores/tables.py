"""The tables of SQLiteStore."""

from __future__ import annotations

APPLICATION = 0x43524F55
"""In the file's header, "CROU": this file is ours."""

SCHEMA = 2
"""Grows with every change of the tables below."""

# WITHOUT ROWID: ids are ordered by time, so rows go straight to the end of one tree, at half the cost of two.
# Numbers have no declared type: a REAL column keeps -0.0 as 0.0.
TABLES = (
    """
    CREATE TABLE decisions (
        id TEXT PRIMARY KEY NOT NULL, route TEXT NOT NULL, arm TEXT NOT NULL, propensity NOT NULL, time NOT NULL,
        policy_version TEXT NOT NULL, unit TEXT NOT NULL, context BLOB, probabilities BLOB, allowed NOT NULL,
        rule TEXT NOT NULL, failed TEXT NOT NULL, proposed BLOB, prediction,
        upstream TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX decisions_of_route ON decisions (route)",  # followed by the primary key, as every index is
    """
    CREATE TABLE outcomes (
        decision TEXT NOT NULL REFERENCES decisions (id), name TEXT NOT NULL, value NOT NULL, time NOT NULL,
        PRIMARY KEY (decision, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE sums (
        route TEXT NOT NULL, layout TEXT NOT NULL, arm TEXT NOT NULL, row BLOB NOT NULL,
        PRIMARY KEY (route, layout, arm)
    )
    """,
    # The settings of a route are long and seldom change, its sums change all the time.
    "CREATE TABLE settings (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    """
    CREATE TABLE fits (
        route TEXT NOT NULL, version TEXT NOT NULL, settings INTEGER NOT NULL REFERENCES settings (id),
        arms INTEGER NOT NULL, sums BLOB NOT NULL, time NOT NULL,
        UNIQUE (route, version)
    )
    """,
    "CREATE INDEX fits_of_route ON fits (route)",
    # How many decisions name a version: to forget its fit with the last of them.
    """
    CREATE TABLE versions (
        route TEXT NOT NULL, version TEXT NOT NULL, uses INTEGER NOT NULL, PRIMARY KEY (route, version)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE events (
        id TEXT PRIMARY KEY NOT NULL, time NOT NULL, route TEXT NOT NULL, arm TEXT NOT NULL, kind TEXT NOT NULL,
        why TEXT NOT NULL, numbers TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX events_of_route ON events (route)",
    """
    CREATE TABLE documents (
        kind TEXT NOT NULL, key TEXT NOT NULL, stamp INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, key)
    )
    """,
    "CREATE INDEX documents_by_stamp ON documents (kind, stamp)",
    "CREATE TABLE writers (writer TEXT PRIMARY KEY NOT NULL, number INTEGER NOT NULL) WITHOUT ROWID",
)
