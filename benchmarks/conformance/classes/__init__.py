"""The models' own code, copied into their folders: `theirs` and `ours` are the same classes, as `plain.py`."""
