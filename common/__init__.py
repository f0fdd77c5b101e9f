"""What both daemons share: the model, the codec between model and wire, errors, TLS."""

import os

# TLS 1.3 only. gRPC's Python has no setting for that, but reads, when it is imported, which cipher
# suites of TLS 1.2 it may use: one that needs a shared secret, which nobody has, is none. Who must
# allow 1.2 sets this variable to the suites to allow (docs/trust.md).
os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-PSK-AES256-CBC-SHA")
