"""The mel features of NeMo's ``AudioToMelSpectrogramPreprocessor``, without NeMo and librosa."""

from .filterbank import slaney_filterbank as slaney_filterbank
from .spectrogram import MelSpectrogram as MelSpectrogram
