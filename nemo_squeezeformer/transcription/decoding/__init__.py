"""Decoding with beam search, a language model, hotwords and confidence, by NeMo's decoders."""
