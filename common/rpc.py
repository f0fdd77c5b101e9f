"""gRPC channels and servers whose settings agree with each other.

A client that pings more often than its server allows is cut off, and a message that one side may
send and the other may not receive fails late; hence both sides are set here, together.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc

IDENTITY_KEY = "vsignal-identity"  # metadata: who calls, e.g. "vserver/host-1"

MAX_MESSAGE = 4 * 1024 * 1024
MAX_STREAMS = 1000  # concurrent calls on one connection; more wait in the client
PING_EVERY_MS = 10_000
PING_TIMEOUT_MS = 5_000
PING_LIMIT_MS = PING_EVERY_MS // 2  # the server's patience, with room for jitter

Option = tuple[str, int | str]
Metadata = tuple[tuple[str, str], ...]

_BOTH: tuple[Option, ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", PING_EVERY_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
CLIENT_OPTIONS: tuple[Option, ...] = (
    *_BOTH,
    ("grpc.enable_retries", 0),  # who retries what is our decision
    ("grpc.use_local_subchannel_pool", 1),  # a channel's troubles are not another channel's
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
SERVER_OPTIONS: tuple[Option, ...] = (
    *_BOTH,
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_LIMIT_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", PING_LIMIT_MS),
    ("grpc.so_reuseport", 0),  # a second daemon on the same port must fail, not share it
)


def identity(name: str) -> Metadata:
    """Metadata that says who calls."""
    return ((IDENTITY_KEY, name),)


def channel(target: str) -> grpc.aio.Channel:
    """A client's channel to `host:port` or `unix:///path`. It connects at the first call."""
    return grpc.aio.insecure_channel(target, options=list(CLIENT_OPTIONS))


def server(interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> grpc.aio.Server:
    """A server without ports; add services, `add_insecure_port`, then start it."""
    return grpc.aio.server(interceptors=list(interceptors), options=list(SERVER_OPTIONS))
