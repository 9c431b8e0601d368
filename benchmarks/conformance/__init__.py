"""The same requests to a stock MLServer and to ours: the same answers, or a difference that is known, with its reason.

`table.py` is the table, written in the words of `language.py`; `known.py` has the differences and the reasons.
"""
