"""What does streaming cost in accuracy, time and memory?"""
