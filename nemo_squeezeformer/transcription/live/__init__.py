"""The transcription of live streams, from samples to features, chunks, tokens and text.

Except for the text, the state of a stream does not grow with the length of the stream.
"""
