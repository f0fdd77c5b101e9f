"""etcd members on this machine, as processes of ours: for trials, and for the tests."""
