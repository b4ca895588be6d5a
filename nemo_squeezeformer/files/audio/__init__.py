"""The reading of audio files with one interface, their headers, and the audio files of a folder."""

from nemo_squeezeformer.files.audio.audio_file import AudioFile, open_audio

__all__ = ["AudioFile", "open_audio"]
