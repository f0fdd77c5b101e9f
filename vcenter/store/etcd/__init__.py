"""A ledger in etcd, shared by several vCenter replicas."""

from vcenter.store.etcd.address import Address, parse_address
from vcenter.store.etcd.store import EtcdStore

__all__ = ["Address", "EtcdStore", "parse_address"]
