"""The proxy's client of shelld; the only importer of grpc and protos in the proxy."""

from proxy import tuning

tuning.choose_grpc_engine()  # set here, because no module of this package imports grpc before this one
