"""What clients and operators ask over gRPC and REST, and who of them may."""
