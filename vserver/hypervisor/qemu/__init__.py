"""QEMU by QMP directly, without libvirtd: guests are processes, and a directory is the truth."""
