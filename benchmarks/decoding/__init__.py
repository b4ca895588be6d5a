"""How much do beam search, a language model and hotwords gain, and does confidence find wrong words?"""
