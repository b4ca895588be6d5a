"""What do the six sizes have and take?"""
