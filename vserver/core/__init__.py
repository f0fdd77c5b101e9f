"""What a host should do, as values in and values out: no I/O, no tasks, no clock of its own."""
