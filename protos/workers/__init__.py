"""Several processes that serve the same on the same ports: started, kept alive, spoken with, drained.

A supervisor starts workers and lets each know what it serves (`supervisor`, `sockets`). A worker is a whole server, and
its crew are all of them as it sees them (`crew`): what has to be done by everybody is ordered through the supervisor,
in one order for all (`line`). What is counted is added up (`scrapes`).
"""
