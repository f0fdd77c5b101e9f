"""The agent as its libvirtd's lock manager: no CPU of a guest runs without asking here."""
