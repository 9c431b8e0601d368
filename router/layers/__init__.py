"""Layers: each wraps a Handler and is one."""
