"""The certificate authority that a vCenter keeps for its domain, where no other does."""
