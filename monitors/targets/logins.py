"""Where and as whom a target is read and acted on."""

from __future__ import annotations

from monitors.action import Refused
from monitors.models import (
    Target,
    TargetSecret,
)
from monitors.pg import connect
from monitors.targets import secrets


def collector_address(target: Target) -> connect.Address:
    """Return where and as whom to read a target; raises secrets.SecretUnreadable."""
    row = TargetSecret.objects.filter(target=target, login=TargetSecret.Login.COLLECTOR).first()
    password = None
    if row is not None:
        password = secrets.unseal_password(
            bytes(row.sealed), row.key_id, target.host, target.port, target.user
        )
    return connect.Address(
        target.host,
        target.port,
        target.user,
        target.dbname,
        target.sslmode,
        target.require_auth,
        password,
    )


def operator_address(target: Target, dbname: str) -> connect.Address:
    """Return where and as whom to act, never the collector; raises SecretUnreadable, Refused."""
    if not target.operator_user:
        message = f"{target.name} has no operator login: give it one to act on it."
        raise Refused(message)
    row = TargetSecret.objects.filter(target=target, login=TargetSecret.Login.OPERATOR).first()
    password = None
    if row is not None:
        password = secrets.unseal_password(
            bytes(row.sealed), row.key_id, target.host, target.port, target.operator_user
        )
    return connect.Address(
        host=target.host,
        port=target.port,
        user=target.operator_user,
        dbname=dbname,
        sslmode=target.sslmode,
        require_auth=target.require_auth,
        password=password,
    )
