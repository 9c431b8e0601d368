"""What is known now, and why: reports, explanations, evaluations and events, as messages and as tables.

`replay` and `study` read the log, `report`, `explain`, `evaluate` and `history` make messages of what they find,
`service` answers with these over gRPC and REST, and `tables` and `commands` show them to people.
"""
