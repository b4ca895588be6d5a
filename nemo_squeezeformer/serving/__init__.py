"""The web page of ``nemo-squeezeformer serve``: live captions of several microphones, and the text of audio files."""
