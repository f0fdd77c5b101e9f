"""Several vCenters over one ledger: following what the others commit, and asking through them."""
