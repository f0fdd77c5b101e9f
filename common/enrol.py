"""Getting a certificate: by a join token the first time, then by the one that is running out.

The private key is made here, and goes nowhere else.
"""

from __future__ import annotations

import grpc

from common import certificates, rpc, tls
from common.jointoken import JoinToken
from common.pb.vsignal.v1 import enrolment_pb2 as pb
from common.pb.vsignal.v1 import enrolment_pb2_grpc
from common.secrets import write_private, write_public
from common.tls import TlsSettings

JOIN_WITHIN = 30.0


def join(token: JoinToken, settings: TlsSettings) -> None:
    """Redeem a token and write the files of [tls]. Raises grpc.RpcError, OSError, or
    `BadCertificate` if the answer is not for us."""
    key = certificates.new_key()
    for path in (settings.identity, settings.ca):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = [*rpc.CLIENT_OPTIONS, rpc.NO_PROXY, rpc.demand(tls.vcenter_name(token.domain))]
    credentials = grpc.ssl_channel_credentials(token.ca.encode())
    request = pb.JoinRequest(
        invitation_id=token.invitation_id,
        secret=token.secret,
        request=certificates.request_pem(key),
    )
    with grpc.secure_channel(token.join, credentials, options=options) as channel:
        answer = enrolment_pb2_grpc.JoiningStub(channel).Join(request, timeout=JOIN_WITHIN)
    keep(settings, certificates.key_pem(key), answer)


def keep(settings: TlsSettings, key: bytes, answer: pb.JoinResponse) -> None:
    """Write what was answered, after a look at it. Raises `BadCertificate`, OSError."""
    identity = key + answer.certificate
    tls.bundle(identity, answer.ca)
    write_public(settings.ca, answer.ca)
    write_private(settings.identity, identity)
