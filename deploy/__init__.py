"""Ways to run vsignal: the laptop lab, and the files that put it on real machines."""
