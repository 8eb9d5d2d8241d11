"""``passl_mixer.trainer.train``, the public path of ``passl_mixer.training.trainer.train``."""
from passl_mixer.training.trainer import train

__all__ = ["train"]
