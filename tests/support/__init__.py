"""What the tests share: a real vCenter on a real socket, clients, and agents that do as told."""
