"""gRPC channels and servers whose settings agree with each other.

A client that pings more often than its server allows is cut off, and a message that one side may
send and the other may not receive fails late; hence both sides are set here, together.
"""

from __future__ import annotations

import ipaddress
import resource
from collections.abc import Sequence

import grpc

from common import tls

IDENTITY_KEY = "vsignal-identity"  # metadata in plain text: who calls, e.g. "vserver/host-1"
DOMAIN_KEY = "vsignal-domain"  # metadata: the domain that is to carry the call out
CALLER_KEY = "vsignal-caller"  # from a vCenter that passes a call on: on whose behalf, and
ASKED_KEY = "vsignal-asked"  # by which domains the call came, the first one first, with commas

MAX_MESSAGE = 4 * 1024 * 1024
MAX_STREAMS = 1000  # concurrent calls on one connection; more wait in the client
MAX_METADATA = 16 * 1024
HANDSHAKE_MS = 10_000  # a connection that has not said who it is by then is closed
IDLE_MS = 600_000  # a connection on which nothing has been asked for so long is closed
PING_EVERY_MS = 10_000
PING_TIMEOUT_MS = 5_000
OWN_FILES = 256  # for what is no connection: the ledger, logs, whoever is told something
MOST_CONNECTIONS = 65_536  # at some 30 KB each while they say nothing
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
    ("grpc.http2.max_ping_strikes", 2),  # the third ping too many ends the connection
    ("grpc.http2.ping_on_rst_stream_percent", 100),  # who resets calls waits for us each time
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
    ("grpc.so_reuseport", 0),  # a second daemon on the same port must fail, not share it
)


def identity(name: str) -> Metadata:
    """Metadata that says who calls, where no certificate does."""
    return ((IDENTITY_KEY, name),)


def addressed(domain: str) -> Metadata:
    """Metadata that says which domain is to carry a call out."""
    return ((DOMAIN_KEY, domain),)


def is_local(address: str) -> bool:
    """Whether nobody but this machine can reach it: a unix socket, or a port of loopback."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def channel(target: str, bundle: tls.Bundle | None = None) -> grpc.aio.Channel:
    """A client's channel to `host:port` or `unix:///path`. It connects at the first call. Without
    certificates: in plain text, to local addresses only (ValueError)."""
    if bundle is None:
        return grpc.aio.insecure_channel(_plain(target), options=list(CLIENT_OPTIONS))
    credentials = tls.channel_credentials(bundle)
    return grpc.aio.secure_channel(target, credentials, options=_named(bundle))


def blocking_channel(target: str, bundle: tls.Bundle | None = None) -> grpc.Channel:
    """The same for programs without an event loop."""
    if bundle is None:
        return grpc.insecure_channel(_plain(target), options=[*CLIENT_OPTIONS, NO_PROXY])
    credentials = tls.channel_credentials(bundle)
    return grpc.secure_channel(target, credentials, options=[*_named(bundle), NO_PROXY])


NO_PROXY: Option = ("grpc.enable_http_proxy", 0)  # the management network is behind none


def _plain(target: str) -> str:
    if not is_local(target):
        raise ValueError(f"{target} is not on this machine: calls to it need a certificate")
    return target


def _named(bundle: tls.Bundle) -> list[Option]:
    """Whom to demand at the other end: a vCenter of our domain, whatever its address."""
    return [*CLIENT_OPTIONS, demand(tls.vcenter_name(bundle.certified.domain))]


def demand(name: str) -> Option:
    """The DNS name that the server's certificate must have."""
    return ("grpc.ssl_target_name_override", name)


def server(
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (), connections: int | None = None
) -> grpc.aio.Server:
    """A server without ports; add services and ports, then start it. More `connections` than that
    are closed at once; unless it is said, as many as there are files that may be open."""
    most = max_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    limit: Option = ("grpc.max_allowed_incoming_connections", connections or most)
    return grpc.aio.server(interceptors=list(interceptors), options=[*SERVER_OPTIONS, limit])


def max_connections(files: int) -> int:
    """Of a process that may have so many files open. Without room for its own it would not answer
    fewer: it would fail."""
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - OWN_FILES, files // 2))
