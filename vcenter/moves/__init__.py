"""What goes on beside the ledger while VMs move: turns in the queue, followers, settling by hand.

The phases themselves are decided in `vcenter/core/movement.py`.
"""
