"""The proxy's end of the wire to shelld; the only importer of grpc and protos in the proxy."""

from proxy import tuning

tuning.choose_grpc_engine()  # here, because no module of this package imports grpc before this one
