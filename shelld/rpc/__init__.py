"""The gRPC service of shelld: authentication, wire format, calls."""
