"""Other vCenters: what is known of their ledgers, and whom to ask about the rest (section 6)."""
