"""What does an encoder take in time and memory, at each length, beside its peers?"""
