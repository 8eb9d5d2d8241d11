"""Captions to token ids and back: CLIP's byte-pair tokenizer, and a tool that learns a vocabulary. No Paddle here."""
from passl_mixer.text.bpe import train_bpe, write_merges
from passl_mixer.text.tokenizer import Tokenizer

__all__ = ["Tokenizer", "train_bpe", "write_merges"]
