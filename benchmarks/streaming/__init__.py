"""How much accuracy, time and memory does streaming cost?"""
