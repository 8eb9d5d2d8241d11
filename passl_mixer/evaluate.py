"""``passl_mixer.evaluate``, the public path of what ``passl_mixer.evaluation`` holds."""
from passl_mixer.evaluation.evaluate import evaluate_checkpoint
from passl_mixer.evaluation.features import encoder_features, extract

__all__ = ["encoder_features", "evaluate_checkpoint", "extract"]
