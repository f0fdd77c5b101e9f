"""Durable records behind one narrow interface: `port`; `memory` and `sqlite` pass one suite."""
