"""The adaptor for libvirt/QEMU hosts; `adaptor.LibvirtHypervisor` is what the agent is handed."""
