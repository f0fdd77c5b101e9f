"""vctl, the operator's command. `main` composes it; one small file per noun."""
