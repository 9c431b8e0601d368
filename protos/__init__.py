"""The wire: messages, tensors, gRPC and REST. Imports nothing of ours."""
