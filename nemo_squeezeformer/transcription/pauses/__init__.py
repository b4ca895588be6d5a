"""Long recordings, cut at pauses into pieces that are decoded like short utterances."""
