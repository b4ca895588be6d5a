"""Transcripts: of whole files, of long recordings, of live streams."""
