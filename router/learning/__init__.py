"""Learning, behind the request path: decisions and outcomes are committed, and policies fitted to their sums."""
