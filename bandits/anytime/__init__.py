"""Statistics that stay valid while people peek: at all times at once, however often one looks, whenever one stops."""
