"""A small HTTP/2 client for calls of one message each way: one connection, many calls at a time, no more.

It is here for its cost: a call takes a fraction of what general clients take. RFC 9113 and RFC 7541.
"""
