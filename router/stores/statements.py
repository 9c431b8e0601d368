"""What SQLiteStore asks of its tables, and does to them."""

from __future__ import annotations

# A list of ids travels as one JSON text: one statement for any number of them.
AMONG = "IN (SELECT value FROM json_each(?))"
KNOWN = f"SELECT json_group_array(id) FROM decisions WHERE id {AMONG}"  # noqa: S608  # ours, as all of these
NAMED = f"SELECT json_group_array(json_array(decision, name)) FROM outcomes WHERE decision {AMONG}"  # noqa: S608
FIND = f"SELECT * FROM decisions WHERE id {AMONG}"  # noqa: S608
OUTCOMES = f"SELECT * FROM outcomes WHERE decision {AMONG} ORDER BY decision, name"  # noqa: S608
LOG, NEWEST = (
    f"""
    SELECT d.*, o.* FROM (SELECT * FROM decisions WHERE route = ? AND id {beyond} ? ORDER BY id {order} LIMIT ?) d
    LEFT JOIN outcomes o ON o.decision = d.id ORDER BY d.id {order}, o.name
    """  # noqa: S608
    for beyond, order in ((">", "ASC"), ("<", "DESC"))
)
END = b""
"""After all ids: SQLite orders any blob after all text."""

CORRECT = "ON CONFLICT (decision, name) DO UPDATE SET value = excluded.value, time = excluded.time"
ADD = "INSERT INTO sums VALUES (?, ?, ?, ?) ON CONFLICT (route, layout, arm) DO UPDATE SET row = excluded.row"
USE = "INSERT INTO versions VALUES (?, ?, ?) ON CONFLICT (route, version) DO UPDATE SET uses = uses + excluded.uses"
FIT = """
    INSERT INTO fits SELECT ?, ?, id, ?, ?, ? FROM settings WHERE text = ?
    ON CONFLICT (route, version) DO NOTHING
"""
STAYS = """
    SELECT min(id) FROM (SELECT id, time FROM decisions WHERE route = ? ORDER BY id LIMIT ? OFFSET ?) WHERE time >= ?
"""
GONE = """
    SELECT max(id), count(*) FROM (SELECT id FROM decisions WHERE route = :route ORDER BY id LIMIT :limit)
    WHERE :stays IS NULL OR id < :stays
"""
OLD = "FROM decisions WHERE route = ? AND id <= ?"
DROP = f"DELETE FROM sums WHERE route = ? AND layout {AMONG}"  # noqa: S608
PUT = "ON CONFLICT (kind, key) DO UPDATE SET stamp = excluded.stamp, body = excluded.body"
ADDED = "INSERT INTO writers VALUES (?, ?) ON CONFLICT (writer) DO UPDATE SET number = max(number, excluded.number)"
