"""Eyes that stay open while a test does something: one moment of openness is enough to be seen."""

from deploy.lab.knocker import Knocker

__all__ = ["Knocker"]
