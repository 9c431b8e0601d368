"""The demonstration: real market data, real models, a real server, and clients that report what happened next."""
