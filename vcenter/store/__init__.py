"""Durable records behind one narrow interface, `port`: `memory`, `sqlite` and `etcd`, one suite."""
