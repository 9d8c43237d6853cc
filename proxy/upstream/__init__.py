"""The proxy's end of the wire to shelld; the only importer of grpc and protos in the proxy."""
