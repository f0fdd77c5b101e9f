"""Pure decisions: what a command changes, given the table and the time. No I/O, no clock.

One file per message of the draft, in its words: register, deregister, sync_group, lookup,
relocate, report; `movement` is what becomes of a move, `wanted` what every host should look like.
"""
