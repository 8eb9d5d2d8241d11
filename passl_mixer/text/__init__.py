"""CLIP's byte-pair tokenizer and the training of its vocabulary. No Paddle here."""
from passl_mixer.text.bpe import train_bpe, write_merges
from passl_mixer.text.tokenizer import Tokenizer

__all__ = ["Tokenizer", "train_bpe", "write_merges"]
