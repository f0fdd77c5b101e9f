"""vctl cert: who has a certificate, gets one, loses it."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import grpc
from google.protobuf.duration_pb2 import Duration

from common import certificates, enrol
from common.certificates import BadCertificate
from common.jointoken import BadToken, JoinToken, parse_token
from common.pb.vsignal.v1 import enrolment_pb2 as pb
from common.secrets import write_public
from common.tls import TlsSettings
from vcenter.ctl.app import App, Seconds, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.failure import Exit, Failure, failure
from vcenter.ctl.output import Column, data, many, raw
from vcenter.ctl.words import moment, or_none


@click.group(cls=Group)
def cert() -> None:
    """Certificates: of hosts, operators, tenants, watchers."""


def _state(item: pb.Certificate) -> str:
    return "revoked" if item.revoked_at.seconds else "issued"


COLUMNS: list[Column[pb.Certificate]] = [
    Column("SERIAL", lambda c: c.serial),
    Column("IDENTITY", lambda c: or_none(c.identity)),
    Column("STATE", _state),
    Column("EXPIRES", lambda c: moment(c.expires_at)),
    Column("ISSUED", lambda c: moment(c.issued_at), wide=True),
    Column("REVOKED", lambda c: moment(c.revoked_at), wide=True),
]


@cert.command("list")
@command_with_app
def list_(app: App) -> None:
    """Lists the certificates that this vCenter issued, or that were revoked here.

    \b
    Example:
      vctl cert list -o wide
    """
    answer = app.client.call(app.client.enrolment.ListCertificates, pb.ListCertificatesRequest())
    many(app, answer.certificates, COLUMNS, lambda c: c.serial, "No certificate was issued here.")


def invite(app: App, identity: str, seconds: float | None) -> None:
    """Prints a token for `identity`, and nothing else on stdout."""
    request = pb.InviteRequest(identity=identity)
    if seconds:
        request.valid_for.CopyFrom(Duration(seconds=int(seconds)))
    answer = app.client.call(app.client.enrolment.Invite, request)
    expires = moment(answer.expires_at)
    if not data(app, {"token": answer.token, "expires_at": expires}):
        raw(answer.token)
        app.say(f"For {identity}, once, until {expires}. Whoever has it first is {identity}.")


def revoke(app: App, request: pb.RevokeRequest) -> None:
    """Says which certificates are worth nothing now."""
    answer = app.client.call(app.client.enrolment.Revoke, request)
    many(app, answer.certificates, COLUMNS, lambda c: c.serial, "Only invitations were withdrawn.")


VALID = click.option("--valid", type=Seconds(), help="How long the token is good  [600s]")


@cert.command("invite")
@click.argument("whom", metavar="IDENTITY")
@VALID
@command_with_app
def invite_(app: App, whom: str, valid: float | None) -> None:
    """Makes a one-time join token: for operator/NAME/view, /operate or /admin, tenant/ID,
    watcher/NAME/tenant/ID, watcher/NAME/network/ID or vserver/ID.

    \b
    Example:
      vctl cert invite operator/alice/operate
    """
    invite(app, whom, valid)


@cert.command("revoke")
@click.argument("which", metavar="SERIAL|IDENTITY")
@command_with_app
def revoke_(app: App, which: str) -> None:
    """Revokes a certificate, or all of an identity; its streams end within 5 s.

    \b
    Examples:
      vctl cert revoke 2f6b1c…
      vctl cert revoke operator/alice/operate
    """
    by_identity = "/" in which
    revoke(
        app,
        pb.RevokeRequest(
            identity=which if by_identity else "", serial="" if by_identity else which
        ),
    )


@cert.command("renew")
@command_with_app
def renew(app: App) -> None:
    """Renews your own certificate, with a new key.

    \b
    Example:
      vctl cert renew
    """
    settings = app.settings
    key = certificates.new_key()
    request = pb.RenewRequest(request=certificates.request_pem(key))
    answer = app.client.call(app.client.enrolment.Renew, request)
    enrol.keep(settings, certificates.key_pem(key), answer)
    app.say(f"Renewed {settings.identity}.")


@cert.command("join")
@click.argument("token", required=False)
@command_with_app
def join(app: App, token: str | None) -> None:
    """Redeems a join token: makes your key, gets your certificate, writes vctl.toml. TOKEN, or
    standard input, so that nobody sees it in `ps`.

    \b
    Example:
      vctl cert join < token
    """
    path = app.config_path
    if path.exists():
        raise Failure(Exit.REFUSED, f"{path} exists already", "Choose another with --config.")
    try:
        read = parse_token(token or sys.stdin.readline())
        _join(read, path)
    except (BadToken, BadCertificate, OSError) as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    app.say(f"You are {read.identity} in {read.domain}: {path}")


def _join(token: JoinToken, path: Path) -> None:
    folder = path.parent
    try:
        enrol.join(token, TlsSettings(identity=folder / "identity.pem", ca=folder / "ca.pem"))
    except grpc.RpcError as error:
        raise failure(error, token.join) from None
    text = f'server = "{token.server}"\ntls = {{identity = "identity.pem", ca = "ca.pem"}}\n'
    write_public(path, text.encode())
