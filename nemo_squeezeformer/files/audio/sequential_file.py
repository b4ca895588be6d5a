"""The reading of a file with soundfile in blocks, without a seek after each block."""

import soundfile


class SequentialFile(soundfile.SoundFile):
    """A file of soundfile that is only read.

    soundfile seeks after each block of a file in which it can seek. The decoder of MP3 loses its state in a seek, and
    the next samples are then wrong. ``seekable`` is therefore False, and ``can_seek`` is the answer of libsndfile.
    """

    def seekable(self) -> bool:
        return False

    def can_seek(self) -> bool:
        """Return True if ``seek`` works."""
        return bool(super().seekable())
