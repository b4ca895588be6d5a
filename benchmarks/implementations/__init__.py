"""How much does each fast implementation gain, and how many lines of code does it need?"""
