"""What does each fast implementation gain where it is used, and how many lines does it take?"""
