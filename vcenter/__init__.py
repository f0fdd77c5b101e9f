import common as common  # before gRPC: see there
