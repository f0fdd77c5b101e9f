"""The main job, told step by step and checked: `./scripts/demo`."""
