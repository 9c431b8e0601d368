"""What is known about a request: read out of it, looked up, and ruled by."""
