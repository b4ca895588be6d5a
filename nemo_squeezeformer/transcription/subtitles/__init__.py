"""Subtitles from words with times: words, cues with readable lines, and the text of SRT and WebVTT files.

from nemo_squeezeformer.transcription.subtitles import cues, srt, words_of

text = srt(cues(words_of(hypothesis.timestamp["word"])))
"""

from nemo_squeezeformer.transcription.subtitles.cues import Cue, Layout, cues
from nemo_squeezeformer.transcription.subtitles.files import srt, vtt
from nemo_squeezeformer.transcription.subtitles.words import Word, words_of

__all__ = ["Cue", "Layout", "Word", "cues", "srt", "vtt", "words_of"]
