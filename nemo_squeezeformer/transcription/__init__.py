"""The transcription of whole files, of long recordings and of live streams."""
